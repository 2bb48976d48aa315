//! Requests to an attached port against requests to another port of the same server.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::bench::{Bench, PORT};
use super::closed_loop::{self, Between, Done};
use super::sample::{Sample, Unit};
use super::say;

/// Both kinds of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Steady {
    /// Each request on a new connection.
    pub(super) new_connections: Comparison,
    /// One request after the other on connections that are kept.
    pub(super) kept_connections: Comparison,
}

/// Answers per second, and the ratio of the two slices of each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Comparison {
    pub(super) direct: Sample,
    pub(super) attached: Sample,
    pub(super) ratio: Sample,
}

/// What one kind of clients got in each round.
#[derive(Debug, Default)]
struct Slices {
    direct: Vec<f64>,
    attached: Vec<f64>,
}

/// All four slices in each round, and the ports in another order each time.
pub(super) fn measure(bench: &Bench, rounds: u32) -> Result<Steady> {
    say("requests to an attached port against another one");
    let (mut new, mut kept) = (Slices::default(), Slices::default());
    // The first slices of a run are unlike all others: nothing is in any cache.
    for address in [bench.direct(), bench.attached()] {
        slice(bench, address, Between::Reconnect)?;
    }
    let before = bench.stage.agent.service(PORT)?.steered;
    let mut connections = 0;
    for round in 0..rounds {
        connections += new.add(bench, Between::Reconnect, round % 2 == 1)?.answers;
        kept.add(bench, Between::Keep, round % 2 == 1)?;
    }
    let steered = bench.stage.agent.service(PORT)?.steered - before;
    ensure!(steered >= connections, "only {steered} of {connections} connections were steered");
    Ok(Steady { new_connections: new.compare()?, kept_connections: kept.compare()? })
}

impl Slices {
    /// One slice on each port; returns what was done on the attached one.
    fn add(&mut self, bench: &Bench, between: Between, attached_first: bool) -> Result<Done> {
        let (direct, attached) = if attached_first {
            let attached = slice(bench, bench.attached(), between)?;
            (slice(bench, bench.direct(), between)?, attached)
        } else {
            let direct = slice(bench, bench.direct(), between)?;
            (direct, slice(bench, bench.attached(), between)?)
        };
        self.direct.push(direct.per_second());
        self.attached.push(attached.per_second());
        Ok(attached)
    }

    fn compare(self) -> Result<Comparison> {
        let direct = Sample::of(Unit::PerSecond, self.direct)?;
        let attached = Sample::of(Unit::PerSecond, self.attached)?;
        Ok(Comparison { ratio: Sample::ratio(&attached, &direct)?, direct, attached })
    }
}

fn slice(bench: &Bench, address: SocketAddr, between: Between) -> Result<Done> {
    bench.check()?;
    closed_loop::run(&bench.cores, address, between, SLICE)
}

const SLICE: Duration = Duration::from_millis(700);
