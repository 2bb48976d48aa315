//! What the kernel counts of programs and maps.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A loaded program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    number: u64,
}

/// How often a program ran, and for how long in all, as far as that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) count: u64,
    pub(crate) nanoseconds: u64,
}

impl Program {
    /// The program that a pinned link holds in place. Its name alone would not do: others may have loaded the same.
    pub(crate) fn linked(pin: &Path) -> Result<Self> {
        let link = ask("link", pin)?;
        let number = link["prog_id"].as_u64();
        Ok(Self { number: number.with_context(|| format!("no program in {link}"))? })
    }

    /// What was counted so far. Nothing is told of a program that never ran.
    pub(crate) fn runs(self) -> Result<Runs> {
        let program = output(&mut command(&["prog", "show", "id", &self.number.to_string()]))?;
        let of = |field: &str| program[field].as_u64().unwrap_or_default();
        Ok(Runs { count: of("run_cnt"), nanoseconds: of("run_time_ns") })
    }
}

impl Runs {
    /// What came in after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            nanoseconds: self.nanoseconds.saturating_sub(earlier.nanoseconds),
        }
    }

    /// The mean of one run.
    pub(crate) fn nanoseconds_each(self) -> f64 {
        self.nanoseconds as f64 / self.count as f64
    }
}

/// The bytes that a pinned map occupies in the kernel.
pub(crate) fn map_bytes(pin: &Path) -> Result<u64> {
    let map = ask("map", pin)?;
    map["bytes_memlock"].as_u64().with_context(|| format!("no size in {map}"))
}

/// What kind of map a pinned one is, as bpftool calls it.
pub(crate) fn map_kind(pin: &Path) -> Result<String> {
    let map = ask("map", pin)?;
    Ok(map["type"].as_str().with_context(|| format!("no type in {map}"))?.to_owned())
}

/// How many entries a pinned hash map has.
pub(crate) fn map_entries(pin: &Path) -> Result<u64> {
    let entries = output(command(&["map", "dump", "pinned"]).arg(pin))?;
    let entries = entries.as_array().with_context(|| format!("no list: {entries}"))?;
    Ok(u64::try_from(entries.len())?)
}

fn ask(kind: &str, pin: &Path) -> Result<Value> {
    output(command(&[kind, "show", "pinned"]).arg(pin))
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new("bpftool");
    command.arg("--json").args(words);
    command
}

fn output(command: &mut Command) -> Result<Value> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}{error}");
    serde_json::from_str(&said).with_context(|| format!("{command:?} answered no JSON: {said}"))
}
