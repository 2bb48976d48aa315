//! Where in its life a generation is.

use std::time::Duration;

use agent_terms::Signal;
use serde::{Deserialize, Serialize};

use super::{DrainPlan, Readiness, Timestamp};

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

    /// Whether it was told to end, as far as that was written down; after a restart, also whether it will not be.
    pub(super) const fn is_told(&self) -> bool {
        match self {
            Self::Finishing { told, .. } => *told,
            Self::Stopping { stop: Stop::Signalled { .. } | Stop::Killed { .. }, .. } => true,
            Self::Stopping { stop: Stop::ToSignal { .. }, .. }
            | Self::Starting { .. }
            | Self::Primary
            | Self::Dead
            | Self::Clearing { .. }
            | Self::Draining { .. }
            | Self::Standby { .. }
            | Self::Parting { .. } => false,
        }
    }

    /// The signal that it is told to end with was sent, or will not be any more.
    pub(super) fn note_told(&mut self, now: Timestamp) {
        match self {
            Self::Finishing { told, .. } => *told = true,
            Self::Stopping { stop, patience, .. } => {
                if let Stop::ToSignal { kill_at } | Stop::Signalled { kill_at } = *stop {
                    *stop = Stop::Signalled { kill_at: now.after(*patience).max(kill_at) };
                }
            }
            Self::Starting { .. }
            | Self::Primary
            | Self::Dead
            | Self::Clearing { .. }
            | Self::Draining { .. }
            | Self::Standby { .. }
            | Self::Parting { .. } => {}
        }
    }
}
