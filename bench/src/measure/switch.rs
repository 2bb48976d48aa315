//! Putting the other generation back, again and again, while both have clients.

use agent_api::RolloutView;
use agent_load::{Plan, Running};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::bench::{Bench, PORT};
use super::control::Control;
use super::sample::Sample;
use super::say;
use tests::servers::Server as _;
use tests::stage::generations;

/// How long it took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Switch {
    /// `agent undo` from its start to its exit.
    pub(super) command: Sample,
    /// The request that it makes.
    pub(super) request: Sample,
}

/// Brings a second generation in and goes to and fro between the two. In the end the second one is alone.
pub(super) fn measure(bench: &Bench) -> Result<Switch> {
    say("switches between two generations");
    let first = hold(bench, 1)?;
    bench.stage.switch(&bench.server, 2, &[])?;
    let second = hold(bench, 2)?;
    let mut commands = Vec::new();
    for serving in TURNS.into_iter().cycle().take(TIMES) {
        let (took, rollout): (_, RolloutView) = bench.timed("undo")?;
        expect(&rollout, serving)?;
        commands.push(took);
    }
    let mut control = Control::connect(bench.stage.agent.runtime(), PORT)?;
    let mut requests = Vec::new();
    for serving in TURNS.into_iter().cycle().take(TIMES) {
        bench.check()?;
        let (took, rollout) = control.undo()?;
        expect(&rollout, serving)?;
        requests.push(took);
    }
    for clients in [first, second] {
        release(clients)?;
    }
    bench.stage.until_steady(PORT)?;
    Ok(Switch { command: Sample::of_times(&commands)?, request: Sample::of_times(&requests)? })
}

/// A slow reader keeps a generation alive: the agent waits for it before it ends the generation.
fn hold(bench: &Bench, number: u32) -> Result<Running> {
    let plan = Plan::http(bench.server.address()).generations(number..=number).stream(1);
    let reader = bench.stage.load(plan)?;
    bench.stage.until("a reader", PORT, |service| {
        generations(service).get(&number).is_some_and(|generation| generation.open_flows > 0)
    })?;
    Ok(reader)
}

fn release(reader: Running) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let seen = runtime.block_on(reader.stop()).summary;
    ensure!(seen.failures() == 0, "a reader was disturbed by a switch:\n{seen}");
    Ok(())
}

fn expect(rollout: &RolloutView, serving: u32) -> Result<()> {
    let to = rollout.to.0;
    ensure!(to == serving, "generation {to} serves and not {serving}");
    rollout.switched_after.context("the answer came before the switch").map(drop)
}

const TIMES: usize = 200;
/// The first `undo` puts generation 1 back.
const TURNS: [u32; 2] = [1, 2];
