//! Programs for lookups to compare with.

use std::fs;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::HashMap;
use aya::programs::SkLookup;

use super::steered::{PORT, lookup};

/// Where `cargo xtask build` puts their object.
pub const YARDSTICKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/yardsticks.o");

/// The programs, loaded but attached nowhere.
#[derive(Debug)]
pub struct Yardsticks {
    ebpf: Ebpf,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yardstick {
    /// Returns.
    Nothing,
    /// Looks up eight times in a hash map with a key of four bytes.
    EightLookups,
}

impl Yardsticks {
    /// Loads them.
    ///
    /// # Errors
    ///
    /// When they were not built, or the kernel refuses.
    pub fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(&fs::read(YARDSTICKS).context("read the yardsticks")?)?;
        let table = ebpf.map_mut("TABLE").context("the table")?;
        HashMap::<_, u32, u64>::try_from(table)?.insert(1, 1, 0)?;
        for yardstick in [Yardstick::Nothing, Yardstick::EightLookups] {
            let program = ebpf.program_mut(yardstick.name()).context("a yardstick")?;
            <&mut SkLookup>::try_from(program)?.load()?;
        }
        Ok(Self { ebpf })
    }

    /// Runs one so often, and returns the mean in nanoseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn run(&self, yardstick: Yardstick, times: u32) -> Result<u32> {
        let program = self.ebpf.program(yardstick.name()).context("a yardstick")?;
        let program: &SkLookup = program.try_into()?;
        Ok(lookup(PORT).run(program.fd()?, times)?.nanoseconds)
    }
}

impl Yardstick {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::EightLookups => "eight_lookups",
        }
    }
}
