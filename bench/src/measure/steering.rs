//! The time that the kernel spends in our programs for one connection.

use anyhow::{Context as _, Result, ensure};
use aya::sys::{Stats, enable_stats};
use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::closed_loop::Client;
use super::sample::{Sample, Unit};
use super::say;
use crate::bpftool::{Program, Runs};

/// Means of one batch of connections each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Steering {
    pub(super) connections_per_batch: u32,
    /// With connections to the attached port.
    pub(super) attached: Costs,
    /// With connections to another port of the namespace.
    pub(super) other: Costs,
}

/// What the programs took with connections to one port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Costs {
    /// `steer`, per connection.
    pub(super) steer: Sample,
    /// `track_flows`, per change of a socket's state, anybody's.
    pub(super) track_flows: Sample,
    /// How many such changes there were for each connection, both of its ends and others' sockets included.
    pub(super) changes: Sample,
}

/// The means of each batch.
#[derive(Debug, Default)]
struct Means {
    steer: Vec<f64>,
    track_flows: Vec<f64>,
    changes: Vec<f64>,
}

/// Connects to both ports in turn, with the kernel counting.
pub(super) fn measure(bench: &Bench, rounds: u32) -> Result<Steering> {
    say("the time in the kernel's programs");
    // The kernel counts while this is open, and so stops with us however we end; the kernel parameter of the same effect
    // would have to be put back.
    let _counting = enable_stats(Stats::RunTime).context("let the kernel count run times")?;
    let links = bench.pins("links")?;
    let steer = Program::linked(&links.join("steer"))?;
    let track_flows = Program::linked(&links.join("track_flows"))?;
    let (mut attached, mut other) = (Means::default(), Means::default());
    for round in 0..rounds {
        let mut ports = [(bench.attached(), &mut attached), (bench.direct(), &mut other)];
        if round % 2 == 1 {
            ports.reverse();
        }
        for (address, means) in ports {
            bench.check()?;
            let before = [steer.runs()?, track_flows.runs()?];
            batch(bench, &mut Client::new(address))?;
            let after = [steer.runs()?, track_flows.runs()?];
            means.add([0, 1].map(|it| after[it].since(before[it])))?;
        }
    }
    Ok(Steering {
        connections_per_batch: BATCH,
        attached: attached.costs()?,
        other: other.costs()?,
    })
}

impl Means {
    /// What both programs did in one batch.
    fn add(&mut self, [steer, track_flows]: [Runs; 2]) -> Result<()> {
        let runs = steer.count;
        ensure!(runs >= u64::from(BATCH), "steer ran {runs} times for {BATCH} connections");
        self.steer.push(steer.nanoseconds_each());
        self.track_flows.push(track_flows.nanoseconds_each());
        self.changes.push(track_flows.count as f64 / f64::from(BATCH));
        Ok(())
    }

    fn costs(self) -> Result<Costs> {
        Ok(Costs {
            steer: Sample::of(Unit::Nanoseconds, self.steer)?,
            track_flows: Sample::of(Unit::Nanoseconds, self.track_flows)?,
            changes: Sample::of(Unit::Ratio, self.changes)?,
        })
    }
}

/// One connection after the other, from the clients' core.
fn batch(bench: &Bench, client: &mut Client) -> Result<()> {
    bench.cores.on_clients(|| (0..BATCH).try_for_each(|_| client.once()))
}

const BATCH: u32 = 1_000;
