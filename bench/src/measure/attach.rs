//! Taking charge of a port and handing it back, while clients come and stay.

use std::time::Duration;

use agent_api::{Attached, Detached};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::bench::{Bench, PORT};
use super::sample::Sample;
use super::say;
use tests::servers::Server as _;
use tests::stage;

/// What it took, and what the clients saw meanwhile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Attach {
    /// Without the start of the agent.
    pub(super) attach: Sample,
    pub(super) detach: Sample,
    /// With it.
    pub(super) first_attach: Sample,
    /// With its end.
    pub(super) last_detach: Sample,
    pub(super) connections: u64,
    pub(super) answers: u64,
    pub(super) failures: u64,
}

/// Attaches and detaches again and again. Leaves the agent running and the port attached.
pub(super) fn measure(bench: &mut Bench, rounds: u32) -> Result<Attach> {
    say("attach and detach under load");
    let clients = bench.stage.load(bench.server.plan().generations(1..=1))?;
    stage::until_answers(&clients, 1, 20)?;
    let (first_attach, last_detach) = repeat(bench, WITH_START)?;
    bench.start_agent()?;
    let (attach, detach) = repeat(bench, rounds.saturating_mul(RUNNING).min(MOST))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let seen = runtime.block_on(clients.stop()).summary;
    ensure!(seen.failures() == 0, "clients were disturbed by attach or detach:\n{seen}");
    bench.stage.agent.attach(PORT)?.success()?;
    Ok(Attach {
        attach: Sample::of_times(&attach)?,
        detach: Sample::of_times(&detach)?,
        first_attach: Sample::of_times(&first_attach)?,
        last_detach: Sample::of_times(&last_detach)?,
        connections: seen.classes.values().map(|class| class.connections).sum(),
        answers: seen.answers(),
        failures: seen.failures(),
    })
}

fn repeat(bench: &Bench, times: u32) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut attaches, mut detaches) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let (took, attached): (_, Attached) = bench.timed("attach")?;
        ensure!(attached.changed, "the port was attached already");
        attaches.push(took);
        let (took, detached): (_, Detached) = bench.timed("detach")?;
        ensure!(detached.changed, "the port was not attached");
        detaches.push(took);
    }
    Ok((attaches, detaches))
}

const WITH_START: u32 = 10;
/// With the agent running, for each round.
const RUNNING: u32 = 90;
/// A thousand with the others.
const MOST: u32 = 1_000 - WITH_START;
