//! One incarnation of the server.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use agent_terms::{GenerationNumber, ProcessIdentity, Release};
use serde::{Deserialize, Serialize};

use super::{DrainPlan, Flows, Listening, Phase, Timestamp};

/// One incarnation of the server: its processes and its listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// 1, 2, 3…
    pub(super) number: GenerationNumber,
    /// Where in its life it is.
    pub(super) phase: Phase,
    /// How it came to be.
    pub(super) origin: Origin,
    /// What the deploy that brought it calls it.
    #[serde(default)]
    pub(super) release: Option<Release>,
    /// How it holds the port.
    pub(super) hold: PortHold,
    /// When it was launched or found.
    pub(super) since: Timestamp,
    /// Its processes, as far as they are known one by one. Those of a launched one are those of its cgroup.
    pub(super) processes: Vec<ProcessIdentity>,
    /// Its listeners.
    pub(super) listeners: Vec<ListenerRecord>,
    /// Ports of listeners that it has had and has no more: flows that came in there may be open.
    #[serde(default)]
    pub(super) former_ports: BTreeSet<u16>,
    /// How long its queues have been waited for since it was replaced.
    #[serde(default)]
    pub(super) queues_waited: Duration,
    /// Flows that would have ended with it when they were last counted.
    #[serde(default)]
    pub(super) flows: u64,
    /// Whether it closed its last listener on some endpoint, though it lives.
    #[serde(default)]
    pub(super) deaf: bool,
    /// Whether it accepts nothing, though it lives and listens: new connections were taken from it for that.
    #[serde(default)]
    pub(super) stuck: bool,
}

/// How a generation came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "origin")]
pub enum Origin {
    /// It ran when the port was attached, or was named by `--pid` or `--listen`.
    Found,
    /// We launched it.
    Launched {
        /// The program's path; `None` where it was lost with the state.
        #[serde(default)]
        program: Option<PathBuf>,
        /// Its name as it was typed, and its arguments.
        command: Vec<String>,
        /// The cgroup that holds its processes and no others.
        cgroup: PathBuf,
        /// Where its standard output and error go.
        log: PathBuf,
    },
}

/// How a generation's listeners hold the public port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PortHold {
    /// Bound to it, together with other generations, in one reuseport group.
    Shared,
    /// Bound to another port; only steering leads there.
    Moved,
    /// Bound to it alone, by Multipath TCP listeners that nobody can steer to: reached by the kernel's own lookup.
    Plain,
    /// Not known yet.
    Unbound,
}

/// A listener that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRecord {
    /// The kernel's number for the socket.
    pub cookie: u64,
    /// What it is bound to.
    pub bound: SocketAddr,
    /// The public port that it serves, where that is known to be another one.
    #[serde(default)]
    pub public: Option<u16>,
}

impl Generation {
    /// One of which nothing is known yet but how it comes to be.
    pub const fn new(
        number: GenerationNumber,
        phase: Phase,
        origin: Origin,
        since: Timestamp,
    ) -> Self {
        Self {
            number,
            phase,
            origin,
            release: None,
            hold: PortHold::Unbound,
            since,
            processes: Vec::new(),
            listeners: Vec::new(),
            former_ports: BTreeSet::new(),
            queues_waited: Duration::ZERO,
            flows: 0,
            deaf: false,
            stuck: false,
        }
    }

    /// The same, with what was found of it.
    #[must_use]
    pub fn found(self, listening: Listening, processes: Vec<ProcessIdentity>) -> Self {
        let Listening { hold, listeners } = listening;
        Self { hold, listeners, processes, ..self }
    }

    /// 1, 2, 3…
    pub const fn number(&self) -> GenerationNumber {
        self.number
    }

    /// Where in its life it is.
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// How it came to be.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What the deploy that brought it calls it.
    pub const fn release(&self) -> Option<&Release> {
        self.release.as_ref()
    }

    /// How it holds the port.
    pub const fn hold(&self) -> PortHold {
        self.hold
    }

    /// When it was launched or found.
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// Its processes, as far as they are known one by one. Those of a launched one are those of its cgroup.
    pub fn processes(&self) -> &[ProcessIdentity] {
        &self.processes
    }

    /// Its listeners.
    pub fn listeners(&self) -> &[ListenerRecord] {
        &self.listeners
    }

    /// Flows that would have ended with it when they were last counted.
    pub const fn flows(&self) -> u64 {
        self.flows
    }

    /// Whether it closed its last listener on some endpoint, though it lives.
    pub const fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Whether it accepts nothing, though it lives and listens: new connections were taken from it for that.
    pub const fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// How much longer its queues may be waited for: what a client of one that accepts nothing needs is its end.
    pub(super) const fn queue_patience(&self, drain: &DrainPlan) -> Duration {
        match self.stuck {
            true => Duration::ZERO,
            false => drain.queue_timeout.saturating_sub(self.queues_waited),
        }
    }

    /// Its queues are waited for no longer, for now: what that took is not there a second time.
    pub(super) fn note_queues_waited(&mut self, now: Timestamp) {
        if let Phase::Clearing { until, drain, .. } | Phase::Parting { until, drain, .. } =
            &self.phase
        {
            self.queues_waited = drain.queue_timeout.saturating_sub(until.since(now));
        }
    }

    /// What its end has to wait for. One that accepts nothing will not do it later either: what waits for it is served once it
    /// closes its listeners, and the kernel moves it.
    pub(super) const fn to_wait_for(&self, flows: Flows) -> Flows {
        if self.stuck { Flows { open: self.at_stake(flows), ..flows } } else { flows }
    }

    /// How many of these would end with it. What waits to be accepted moves to another generation that shares the port.
    pub(super) const fn at_stake(&self, flows: Flows) -> u64 {
        match self.hold {
            PortHold::Shared => flows.open.saturating_sub(flows.queued),
            PortHold::Plain | PortHold::Moved | PortHold::Unbound => flows.open,
        }
    }

    /// These are its listeners now.
    pub(super) fn listen_by(&mut self, Listening { hold, listeners }: Listening) {
        self.hold = hold;
        let before = std::mem::replace(&mut self.listeners, listeners);
        self.former_ports.extend(before.iter().map(|listener| listener.bound.port()));
    }

    /// Its listeners, and how they hold the public port.
    pub fn listening(&self) -> Listening {
        Listening { hold: self.hold, listeners: self.listeners.clone() }
    }

    /// The ports that its listeners have, or had: its flows may be on any of them.
    pub fn own_ports(&self) -> impl Iterator<Item = u16> {
        let bound = self.listeners.iter().map(|listener| listener.bound.port());
        bound.chain(self.former_ports.iter().copied())
    }

    /// Whether steering may lead here: it is the primary, or a standby. A deaf one stays: the kernel skips a generation that
    /// has no listener for a connection by itself, and the endpoints that are left still have one to fall back to.
    pub const fn can_serve(&self) -> bool {
        matches!(
            self.phase,
            Phase::Primary
                | Phase::Clearing { .. }
                | Phase::Draining { .. }
                | Phase::Standby { .. }
        )
    }

    /// Whether clients would be refused without steering. One that is dead, or has closed its listener, serves nobody: there is
    /// nobody to be cut off.
    pub fn is_reached_by_steering_alone(&self) -> bool {
        self.hold == PortHold::Moved && self.phase == Phase::Primary && !self.deaf
    }

    /// Whether it was told to end, as far as that was written down; after a restart, also whether it will not be.
    pub const fn is_told(&self) -> bool {
        self.phase.is_told()
    }

    /// The signal that it is told to end with was sent, or will not be any more.
    pub(super) fn note_told(&mut self, now: Timestamp) {
        self.phase.note_told(now);
    }

    /// Whether it could be the primary again: it was replaced, listens on every endpoint, and nobody told it to end.
    pub const fn can_take_over(&self) -> bool {
        let replaced = matches!(
            self.phase,
            Phase::Clearing { .. }
                | Phase::Draining { .. }
                | Phase::Standby { .. }
                | Phase::Parting { .. }
        );
        replaced && !self.deaf && !self.stuck
    }
}
