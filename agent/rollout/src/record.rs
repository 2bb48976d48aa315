//! What became of each upgrade and undo.

use std::time::Duration;

use agent_terms::{GenerationNumber, Release};
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Numbers the rollouts of a service: 1, 2, 3…
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct RolloutId(pub u64);

impl RolloutId {
    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One upgrade or undo from start to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its number within the service.
    pub id: RolloutId,
    /// What was asked for.
    pub kind: Kind,
    /// The generation that is to be replaced.
    pub from: GenerationNumber,
    /// The generation that is to take over.
    pub to: GenerationNumber,
    /// What the deploy that asked for it calls what it brings.
    #[serde(default)]
    pub release: Option<Release>,
    /// When it began.
    pub began: Timestamp,
    /// When new connections were given to `to`.
    pub switched: Option<Timestamp>,
    /// Until when `to` has to prove itself.
    #[serde(default)]
    pub settled: Option<Timestamp>,
    /// How long that takes, each time that it gets the new connections.
    #[serde(default)]
    pub settle: Duration,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Queued and half-open connections that were waited for: the most that were seen at once.
    #[serde(default)]
    pub waited: u64,
    /// Where it stands.
    pub status: Status,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A new generation.
    Upgrade,
    /// Back to the one before.
    Undo,
    /// None was: the server had died, or was deaf, and somebody else started it anew.
    Restart,
}

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// The new generation is not ready yet.
    MakingReady,
    /// New connections go to the new generation, which has to prove itself; the old one is there to go back to.
    Settling,
    /// New connections go to the new generation; the old one has flows.
    Draining,
    /// It is over.
    Ended(Outcome),
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The old generation has drained; it is gone, or kept as a standby.
    Completed,
    /// The drain deadline passed with this many flows left, which ended with the old generation.
    DeadlinePassed {
        /// How many.
        flows_left: u64,
    },
    /// The old generation died during its drain.
    OldDied {
        /// Flows that it had when they were last counted, which ended with it.
        #[serde(default)]
        flows: u64,
    },
    /// The old generation was killed, and has not ended: a tracer keeps it, or a system call that does not return.
    Outlived {
        /// Flows that it had when they were last counted, and may still have.
        flows_left: u64,
    },
    /// The new generation died after the switch, when the old one had already been told to end.
    NewDied,
    /// The new generation did not become ready, and the old one serves on; or it came to serve, accepted nothing more, and there
    /// was nobody to go back to.
    NotReady {
        /// Why.
        reason: String,
    },
    /// New connections went back to the old generation after the switch; also where that was after the rollout had completed.
    RolledBack {
        /// Why.
        reason: String,
    },
}

impl Rollout {
    /// Whether it is over.
    pub const fn is_ended(&self) -> bool {
        matches!(self.status, Status::Ended(_))
    }

    /// Whether the new generation has the new connections and has to prove itself.
    pub(super) const fn is_settling(&self) -> bool {
        matches!(self.status, Status::Settling)
    }

    /// Whether it is under way, and the new generation has the new connections.
    pub(super) const fn has_switched(&self) -> bool {
        matches!(self.status, Status::Settling | Status::Draining)
    }

    /// Whether the new generation did not stay, or did not even come to serve.
    pub const fn is_setback(&self) -> bool {
        let setback = matches!(
            self.status,
            Status::Ended(Outcome::NotReady { .. } | Outcome::RolledBack { .. } | Outcome::NewDied)
        );
        setback && matches!(self.kind, Kind::Upgrade)
    }

    pub(super) fn end(&mut self, outcome: Outcome, now: Timestamp) {
        self.status = Status::Ended(outcome);
        self.ended = Some(now);
    }
}

impl Outcome {
    /// Why it was not as meant, where the new generation did not stay.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::NotReady { reason } | Self::RolledBack { reason } => Some(reason),
            Self::Completed
            | Self::DeadlinePassed { .. }
            | Self::OldDied { .. }
            | Self::Outlived { .. }
            | Self::NewDied => None,
        }
    }
}

impl std::fmt::Display for RolloutId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MakingReady => f.write_str("making ready"),
            Self::Settling => f.write_str("settling"),
            Self::Draining => f.write_str("draining"),
            Self::Ended(outcome) => outcome.fmt(f),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::DeadlinePassed { flows_left } => {
                write!(f, "the drain deadline passed with {flows_left} flows left")
            }
            Self::OldDied { flows } => {
                write!(f, "the old generation died during its drain with {flows} flows")
            }
            Self::Outlived { flows_left } => {
                write!(
                    f,
                    "the old generation was killed and has not ended, with {flows_left} flows"
                )
            }
            Self::NewDied => f.write_str("the new generation died, and no other one can take over"),
            Self::NotReady { reason } => {
                write!(f, "the new generation did not become ready: {reason}")
            }
            Self::RolledBack { reason } => write!(f, "rolled back: {reason}"),
        }
    }
}
