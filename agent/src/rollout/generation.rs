//! One incarnation of the server.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{DrainPlan, Flows, Listening, Readiness, Timestamp};
use crate::{
    host::process::ProcessIdentity,
    service::{GenerationNumber, Release, Signal},
};

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

/// Where in its life a generation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum Phase {
    /// Being made ready; gets no connection.
    Starting {
        /// Until when it must be ready.
        ready_by: Timestamp,
        /// What shows that it is.
        #[serde(default)]
        ready: Readiness,
        /// Whether it listens on every endpoint, and is to show that it accepts.
        #[serde(default)]
        listens: bool,
        /// How long it has to prove itself after the switch.
        #[serde(default)]
        settle: Duration,
        /// Why it is not ready yet, as far as anybody knows.
        obstacle: Option<String>,
        /// How the one that it replaces will leave.
        drain: DrainPlan,
    },
    /// Takes new connections.
    Primary,
    /// Was the primary and died with nobody to take over; the kernel's own lookup decides.
    Dead,
    /// Replaced; what its kernel queues hold is being waited for.
    #[serde(alias = "settling")]
    Clearing {
        /// Until when.
        until: Timestamp,
        /// Until when it is kept to fall back to.
        #[serde(default)]
        keep_until: Timestamp,
        /// How it leaves.
        drain: DrainPlan,
    },
    /// Replaced; its flows are being waited for.
    Draining {
        /// Until when.
        deadline: Timestamp,
        /// Until when it is kept to fall back to.
        #[serde(default)]
        keep_until: Timestamp,
        /// How it leaves.
        drain: DrainPlan,
    },
    /// Drained, and kept to fall back to.
    Standby {
        /// Until when.
        until: Timestamp,
        /// How it leaves then.
        drain: DrainPlan,
    },
    /// About to be told to end: steering leads here no more, and what the kernel gave it before that is looked for.
    Parting {
        /// Until when what waits in its queues is waited for.
        until: Timestamp,
        /// Until when its flows are.
        deadline: Timestamp,
        /// How it leaves.
        drain: DrainPlan,
    },
    /// Told to end by a graceful drain: its server finishes its flows by itself.
    Finishing {
        /// When it is killed.
        deadline: Timestamp,
        /// With what it is told.
        signal: Signal,
        /// Whether it was, as far as that was written down; after a restart, also whether it will not be.
        #[serde(default = "as_if_told")]
        told: bool,
    },
    /// Told to end.
    Stopping {
        /// How far that has come.
        #[serde(flatten)]
        stop: Stop,
        /// How long it has for its end, from the signal on: that may have to be tried again.
        #[serde(default)]
        patience: Duration,
        /// With what it is told.
        signal: Signal,
        /// Flows that it had then.
        flows_left: u64,
    },
}

/// How far a generation has been brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenStop", into = "WrittenStop")]
pub enum Stop {
    /// The signal is to be sent. It is not killed before that, nor before this time.
    ToSignal {
        /// When.
        kill_at: Timestamp,
    },
    /// The signal was sent, as far as that was written down; after a restart, also: it will not be.
    Signalled {
        /// When it is killed.
        kill_at: Timestamp,
    },
    /// It was killed, or is to be.
    Killed {
        /// When its time was up.
        at: Timestamp,
    },
}

/// As it is written down. Earlier versions wrote elsewhere whether it was told: what is not told twice is killed when its time is up.
#[derive(Clone, Serialize, Deserialize)]
struct WrittenStop {
    kill_at: Timestamp,
    killed: bool,
    #[serde(default = "as_if_told")]
    told: bool,
}

const fn as_if_told() -> bool {
    true
}

impl From<WrittenStop> for Stop {
    fn from(WrittenStop { kill_at, killed, told }: WrittenStop) -> Self {
        match (killed, told) {
            (true, _) => Self::Killed { at: kill_at },
            (false, true) => Self::Signalled { kill_at },
            (false, false) => Self::ToSignal { kill_at },
        }
    }
}

impl From<Stop> for WrittenStop {
    fn from(stop: Stop) -> Self {
        let (kill_at, killed, told) = match stop {
            Stop::ToSignal { kill_at } => (kill_at, false, false),
            Stop::Signalled { kill_at } => (kill_at, false, true),
            Stop::Killed { at } => (at, true, true),
        };
        Self { kill_at, killed, told }
    }
}

impl Stop {
    /// When its time is up, or was.
    pub const fn deadline(self) -> Timestamp {
        match self {
            Self::ToSignal { kill_at } | Self::Signalled { kill_at } => kill_at,
            Self::Killed { at } => at,
        }
    }
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

impl Phase {
    /// Has one that was replaced kept to fall back to until then, if it is not leaving already.
    pub(super) fn keep_until_at_least(&mut self, kept: Timestamp) {
        match self {
            Self::Clearing { keep_until: until, .. }
            | Self::Draining { keep_until: until, .. }
            | Self::Standby { until, .. } => *until = kept.max(*until),
            Self::Starting { .. }
            | Self::Primary
            | Self::Dead
            | Self::Parting { .. }
            | Self::Finishing { .. }
            | Self::Stopping { .. } => {}
        }
    }

    /// How a generation in this phase leaves, where that is still to come.
    pub const fn drain(&self) -> Option<&DrainPlan> {
        match self {
            Self::Starting { drain, .. }
            | Self::Clearing { drain, .. }
            | Self::Draining { drain, .. }
            | Self::Standby { drain, .. }
            | Self::Parting { drain, .. } => Some(drain),
            Self::Primary | Self::Dead | Self::Finishing { .. } | Self::Stopping { .. } => None,
        }
    }

    /// When its flows are waited for no longer, if they are.
    pub const fn drain_deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Draining { deadline, .. }
            | Self::Parting { deadline, .. }
            | Self::Finishing { deadline, .. } => Some(*deadline),
            Self::Starting { .. }
            | Self::Primary
            | Self::Dead
            | Self::Clearing { .. }
            | Self::Standby { .. }
            | Self::Stopping { .. } => None,
        }
    }

    /// Since when what its queues hold is waited for, if it is; as if it had been in one go.
    pub const fn queues_since(&self) -> Option<Timestamp> {
        match self {
            Self::Clearing { until, drain, .. } | Self::Parting { until, drain, .. } => {
                Some(until.before(drain.queue_timeout))
            }
            Self::Starting { .. }
            | Self::Primary
            | Self::Dead
            | Self::Draining { .. }
            | Self::Standby { .. }
            | Self::Finishing { .. }
            | Self::Stopping { .. } => None,
        }
    }
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
        match self.phase {
            Phase::Finishing { told, .. } => told,
            Phase::Stopping { stop: Stop::Signalled { .. } | Stop::Killed { .. }, .. } => true,
            Phase::Stopping { stop: Stop::ToSignal { .. }, .. }
            | Phase::Starting { .. }
            | Phase::Primary
            | Phase::Dead
            | Phase::Clearing { .. }
            | Phase::Draining { .. }
            | Phase::Standby { .. }
            | Phase::Parting { .. } => false,
        }
    }

    /// The signal that it is told to end with was sent, or will not be any more.
    pub(super) fn note_told(&mut self, now: Timestamp) {
        match &mut self.phase {
            Phase::Finishing { told, .. } => *told = true,
            Phase::Stopping { stop, patience, .. } => {
                if let Stop::ToSignal { kill_at } | Stop::Signalled { kill_at } = *stop {
                    *stop = Stop::Signalled { kill_at: now.after(*patience).max(kill_at) };
                }
            }
            Phase::Starting { .. }
            | Phase::Primary
            | Phase::Dead
            | Phase::Clearing { .. }
            | Phase::Draining { .. }
            | Phase::Standby { .. }
            | Phase::Parting { .. } => {}
        }
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
