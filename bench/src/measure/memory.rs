//! What the agent occupies when all else has been measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::say;
use crate::bpftool;
use crate::usage;

/// In bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Pages of the agent that are in memory (`VmRSS`), shared ones in full.
    pub(super) resident_bytes: u64,
    /// The part of them that is no file (`RssAnon`): heap and stacks.
    pub(super) own_bytes: u64,
    /// All, with shared pages in the agent's part (`Pss`).
    pub(super) proportional_bytes: u64,
    /// Each pinned map, by its name.
    pub(super) map_bytes: BTreeMap<String, u64>,
}

pub(super) fn measure(bench: &Bench) -> Result<Memory> {
    say("memory");
    let agent = bench.stage.agent.daemon().context("the agent does not run any more")?;
    let of = |file, name| field(agent.pid(), file, name);
    Ok(Memory {
        resident_bytes: of("status", "VmRSS")?,
        own_bytes: of("status", "RssAnon")?,
        proportional_bytes: of("smaps_rollup", "Pss")?,
        map_bytes: maps(&bench.pins("maps")?)?,
    })
}

impl Memory {
    pub(super) fn all_maps(&self) -> u64 {
        self.map_bytes.values().sum()
    }
}

/// A field of a file that tells about a process.
pub(super) fn field(pid: i32, file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    usage::bytes(&text, name).with_context(|| format!("no {name} in {file} of the agent"))
}

/// What each pinned map occupies, by its name.
pub(super) fn maps(pins: &Path) -> Result<BTreeMap<String, u64>> {
    let entries = fs::read_dir(pins).context("list the pinned maps")?;
    let size = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Ok((name, bpftool::map_bytes(&entry.path())?))
    };
    entries.map(size).collect()
}
