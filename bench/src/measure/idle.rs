//! What the agent uses of the processor: for an upgrade, and when nothing happens.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::bench::{Bench, PORT};
use super::sample::Sample;
use super::say;
use crate::usage;
use tests::servers::Server as _;
use tests::wait;

/// Of all threads of the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Idle {
    /// From the start of the command until the generation before is gone.
    pub(super) upgrade_cpu: Sample,
    /// Without a rollout, a client or a question.
    pub(super) seconds: u64,
    /// How often a thread was woken meanwhile.
    pub(super) wakeups: u64,
    /// What they used of a processor meanwhile.
    pub(super) cpu_ms: f64,
}

/// Upgrades, and then waits. The second generation serves when this begins.
pub(super) fn measure(bench: &Bench) -> Result<Idle> {
    say("the processor's time for upgrades, and at rest");
    let agent = bench.stage.agent.daemon().context("the agent does not run any more")?;
    let mut upgrades = Vec::new();
    for generation in (3..).take(UPGRADES) {
        bench.check()?;
        let before = usage::used(agent.pid())?;
        let command = bench.server.command(generation)?;
        bench.stage.agent.upgrade(PORT, &command)?.success()?;
        upgrades.push(usage::used(agent.pid())?.saturating_sub(before));
    }
    bench.stage.until_steady(PORT)?;
    // The connections of the last question are closed by then.
    wait::sleep(Duration::from_secs(1));
    let (waits, used) = (usage::waits(agent.pid())?, usage::used(agent.pid())?);
    wait::sleep(REST);
    let (waited, using) = (usage::waits(agent.pid())?, usage::used(agent.pid())?);
    Ok(Idle {
        upgrade_cpu: Sample::of_times(&upgrades)?,
        seconds: REST.as_secs(),
        wakeups: waited.saturating_sub(waits),
        cpu_ms: using.saturating_sub(used).as_secs_f64() * 1e3,
    })
}

const UPGRADES: usize = 10;
const REST: Duration = Duration::from_secs(10);
