//! What a run found, as it is kept: tables and plots are made of nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::contender::Contender;
use super::machine::Circumstances;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) circumstances: Circumstances,
    pub(super) contenders: Vec<Contender>,
    /// Contenders that did not run, or not to the end, and why.
    pub(super) gaps: BTreeMap<String, String>,
    pub(super) turns: Vec<Turn>,
}

/// One contender in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// The name of the contender.
    pub contender: String,
    /// From 1.
    pub round: u32,
    /// Attempts to connect, by class of client.
    pub connections: BTreeMap<String, u64>,
    /// Connections that failed before they were served, by class of client and kind of failure.
    pub failed: BTreeMap<String, BTreeMap<String, u64>>,
    /// Established connections that were broken, by class of client and kind of failure.
    pub broken: BTreeMap<String, BTreeMap<String, u64>>,
    /// Kept connections that the server ended after announcing it, which is no failure.
    pub announced: u64,
    /// New connections whose handshake took a second: a SYN was lost.
    pub slow: u64,
    /// Requests that the clients began too late: their machine was busy.
    pub late: u64,
    /// The upgrades, and the way back.
    pub switches: Vec<Switch>,
    /// Requests per second without an upgrade.
    pub steady: Option<Steady>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A newer version.
    Upgrade,
    /// The version before.
    Undo,
}

/// From one version to another one. Times are in milliseconds from the start of the command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Switch {
    /// What was done.
    pub act: Act,
    /// The end of the command.
    pub command_ms: f64,
    /// When the first new connection was begun that the wanted version answered.
    pub first_new_ms: Option<f64>,
    /// When the last new connection was begun that the other version answered, from the start of the command on.
    pub last_old_ms: Option<f64>,
    /// Handshakes within 100 ms of the first one: how many took so many microseconds.
    pub connect_us: BTreeMap<u64, u64>,
    /// What the agent used of a processor until the next switch.
    pub agent_cpu_ms: Option<f64>,
}

/// Requests per second of the contender, and of the same server alone right before or after.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Steady {
    /// Each request on a new connection: alone, contender.
    pub new: [f64; 2],
    /// One request after the other on connections that are kept: alone, contender. Nothing if the server keeps none.
    pub kept: Option<[f64; 2]>,
}

impl Turn {
    /// How many new connections there were, without those by which other clients come back: a client that is refused tries
    /// again at once.
    pub fn attempts(&self) -> u64 {
        self.connections.get(NEW).copied().unwrap_or(0)
    }

    /// How many of them failed.
    pub fn failed_new(&self) -> u64 {
        self.failed.get(NEW).into_iter().flat_map(BTreeMap::values).sum()
    }

    /// How many established connections were broken.
    pub fn broken_established(&self) -> u64 {
        self.broken.values().flat_map(BTreeMap::values).sum()
    }
}

impl Switch {
    /// From the start of the command until every new connection reaches the wanted version.
    pub(super) fn complete_ms(&self) -> Option<f64> {
        let first = self.first_new_ms?;
        Some(self.last_old_ms.map_or(first, |last| last.max(first)))
    }

    /// For how long new connections reached both versions, or (negative) none.
    pub(super) fn overlap_ms(&self) -> Option<f64> {
        Some(self.last_old_ms? - self.first_new_ms?)
    }
}

impl Results {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("read `{}`", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understand `{}`", file.display()))
    }

    /// One line for each turn, so that two runs can be compared line by line.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let Self { circumstances, contenders, gaps, turns } = self;
        let line = |turn| serde_json::to_string(turn).context("write a turn down");
        let turns: Vec<String> = turns.iter().map(line).collect::<Result<_>>()?;
        let text = format!(
            "{{\n\"circumstances\": {},\n\"contenders\": {},\n\"gaps\": {},\n\"turns\": [\n{}\n]\n}}\n",
            serde_json::to_string_pretty(circumstances)?,
            serde_json::to_string_pretty(contenders)?,
            serde_json::to_string_pretty(gaps)?,
            turns.join(",\n")
        );
        fs::write(file, text).with_context(|| format!("write `{}`", file.display()))
    }

    pub(super) fn of<'a>(&'a self, contender: &'a Contender) -> impl Iterator<Item = &'a Turn> {
        self.turns.iter().filter(|turn| turn.contender == contender.name)
    }
}

/// The class of clients with one request on each connection.
const NEW: &str = "one_shot";
