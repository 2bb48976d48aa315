//! What a run was made on, and with.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::measure::cores::Cores;

/// All that a reader needs to repeat a run, or to doubt it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Circumstances {
    /// Day and time in UTC.
    pub(super) date: String,
    pub(super) command: String,
    pub(super) rounds: u32,
    pub(super) switches_per_turn: u32,
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) cores: u32,
    /// Tasks that wanted to run, in the mean of a minute, before and after: others' work is in all numbers.
    pub(super) load: [String; 2],
    pub(super) versions: BTreeMap<String, String>,
    /// Kernel parameters of a fresh network namespace.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Circumstances {
    pub(super) fn now(rounds: u32, switches_per_turn: u32, command: &str) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "shown, as the day of the measurement")]
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let processor = fields.find(|(field, _)| field.trim() == "model name");
        let load = load()?;
        Ok(Self {
            date,
            command: command.to_owned(),
            rounds,
            switches_per_turn,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor: processor.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned(),
            cores: Cores::find()?.count(),
            load: [load.clone(), load],
            versions: VERSIONS.iter().filter_map(|words| version(words)).collect(),
            parameters: PARAMETERS.iter().filter_map(|name| parameter(name)).collect(),
        })
    }

    pub(super) fn end(&mut self) -> Result<()> {
        self.load[1] = load()?;
        Ok(())
    }
}

fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

/// What a program says of its version, in its first line; nothing if it is not there.
fn version(words: &[&str]) -> Option<(String, String)> {
    let output = Command::new(words[0]).args(&words[1..]).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Some((words[0].to_owned(), text.lines().next()?.trim().to_owned()))
}

fn parameter(name: &str) -> Option<(String, String)> {
    let value = fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?;
    Some((name.replace('/', "."), value.split_whitespace().collect::<Vec<_>>().join(" ")))
}

const VERSIONS: [&[&str]; 7] = [
    &["nginx", "-v"],
    &["haproxy", "-v"],
    &["gunicorn", "--version"],
    &["node", "--version"],
    &["python3", "--version"],
    &["redis-server", "--version"],
    &["nft", "--version"],
];

const PARAMETERS: [&str; 5] = [
    "core/somaxconn",
    "ipv4/tcp_max_syn_backlog",
    "ipv4/tcp_syncookies",
    "ipv4/tcp_migrate_req",
    "ipv4/ip_local_port_range",
];
