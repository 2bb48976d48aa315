//! The clients: some connect anew all the time, and in each act there are guests who stay connected.

use std::time::{Duration, Instant, SystemTime};

use agent_load::{Load, Plan, Report, Running, Stream};
use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use tests::namespace::Namespace;
use tests::servers::Server;

/// New connections in each second.
pub(super) const RATE: u32 = 200;
/// Guests with one request after the other on a connection that they keep.
pub(super) const KEPT: u32 = 8;
/// Guests who take a long time to read one answer.
pub(super) const READERS: u32 = 2;

/// All clients.
#[derive(Debug)]
pub(super) struct Traffic {
    runtime: Runtime,
    guests_plan: Plan,
    steady: Option<Running>,
    guests: Vec<Running>,
    left: Vec<Report>,
    /// The same instant on both clocks: the agent tells times of day.
    epoch: (Instant, SystemTime),
}

/// What they saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// The new connections.
    pub(super) steady: Report,
    /// Each act's guests.
    pub(super) guests: Vec<Report>,
    epoch: (Instant, SystemTime),
}

impl Traffic {
    /// Lets the new connections begin.
    pub(super) fn begin(
        server: &dyn Server,
        namespace: &Namespace,
        generations: u32,
    ) -> Result<Self> {
        let plan = Plan::http(server.address())
            .generations(1..=generations)
            .namespace(namespace.descriptor());
        let mut guests_plan = plan.clone().keep_alive(KEPT, Duration::from_millis(50));
        // About forty seconds for all of it: no reader is done before it leaves, then the rest comes at once.
        guests_plan.stream = Some(Stream {
            connections: READERS,
            bytes: 8 << 10,
            receive_buffer: 8 << 10,
            ..Stream::default()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "to compare with the times that the agent shows"
        )]
        let epoch = (Instant::now(), SystemTime::now());
        let steady = Some(Load::start(plan.one_shot(RATE))?);
        Ok(Self { runtime, guests_plan, steady, guests: Vec::new(), left: Vec::new(), epoch })
    }

    /// Guests come, and stay.
    pub(super) fn guests_come(&mut self) -> Result<()> {
        self.guests.push(Load::start(self.guests_plan.clone())?);
        Ok(())
    }

    /// All guests finish what they are at, and go.
    pub(super) fn guests_leave(&mut self) {
        for guests in self.guests.drain(..) {
            self.left.push(self.runtime.block_on(guests.stop()));
        }
    }

    /// What has gone wrong so far.
    pub(super) fn failures(&self) -> u64 {
        let running = self.steady.iter().chain(&self.guests);
        let now: u64 = running.map(|running| running.snapshot().failures()).sum();
        now + self.left.iter().map(|report| report.summary.failures()).sum::<u64>()
    }

    /// All clients finish what they are at, and go.
    pub(super) fn end(&mut self) -> Result<Seen> {
        self.guests_leave();
        let steady = self.steady.take().context("the clients have gone already")?;
        let steady = self.runtime.block_on(steady.stop());
        Ok(Seen { steady, guests: std::mem::take(&mut self.left), epoch: self.epoch })
    }
}

impl Seen {
    /// The instant of a time that the agent told.
    pub(super) fn instant(&self, at: SystemTime) -> Option<Instant> {
        let (instant, time) = self.epoch;
        let since = at.duration_since(time).ok()?;
        Some(instant + since)
    }

    /// All runs.
    pub(super) fn all(&self) -> impl Iterator<Item = &Report> {
        std::iter::once(&self.steady).chain(&self.guests)
    }
}
