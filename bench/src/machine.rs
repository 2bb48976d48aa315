//! What was measured on.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The machine, the versions and the time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    /// How many were used at most.
    pub(crate) cores: u32,
    pub(crate) processor: String,
    pub(crate) server: String,
    pub(crate) agent: String,
    /// How many tasks wanted to run before this did, in the mean of a minute: others' work is in all numbers.
    pub(crate) load: f64,
    /// Day and time in UTC.
    pub(crate) date: String,
}

impl Machine {
    /// This one, with so many cores.
    pub(crate) fn with_cores(cores: u32) -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        // It says its version on the standard error.
        let nginx = Command::new("nginx").arg("-v").output().context("ask nginx its version")?;
        let nginx = String::from_utf8_lossy(&nginx.stderr);
        let server = nginx.trim().trim_start_matches("nginx version: ").to_owned();
        #[expect(clippy::disallowed_methods, reason = "shown, as the day of the measurement")]
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().unwrap_or_default();
        let load = load.parse().with_context(|| format!("the load `{load}`"))?;
        let processor = processor(&fs::read_to_string("/proc/cpuinfo")?);
        let agent = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self { kernel, cores, processor, server, agent, load, date })
    }

    /// The day alone.
    pub(crate) fn day(&self) -> &str {
        self.date.split('T').next().unwrap_or_default()
    }
}

/// Not every architecture has a name for its processors there.
fn processor(cpuinfo: &str) -> String {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let name = fields.find(|(field, _)| field.trim() == "model name");
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: Fast One\n"), "Fast One");
        assert_eq!(processor("processor\t: 0\n"), std::env::consts::ARCH);
    }
}
