//! One rollout, as it is shown.

use std::path::PathBuf;

use agent_rollout::{Kind, Outcome, RolloutId, Status};
use agent_terms::{GenerationNumber, Release, ServiceName};
use serde::{Deserialize, Serialize};

use super::Serving;

/// One rollout, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Version of these types.
    pub schema: u32,
    /// The service.
    pub service: ServiceName,
    /// Its number within the service.
    pub id: RolloutId,
    /// What was asked for.
    pub kind: Kind,
    /// The generation that is replaced.
    pub from: GenerationNumber,
    /// The generation that takes over.
    pub to: GenerationNumber,
    /// What the deploy that asked for it calls what it brings; of an undo, what it puts back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// Where it stands; `ended` carries the outcome.
    pub status: Status,
    /// Milliseconds since 1970 at which it began.
    pub began_unix_ms: u64,
    /// Seconds from its begin to the switch.
    pub switched_after_seconds: Option<f64>,
    /// Seconds from its begin to its end.
    pub ended_after_seconds: Option<f64>,
    /// Whether the new generation, which is not ready yet, listens.
    #[serde(default)]
    pub listens: bool,
    /// Where the output of the new generation is, if it was launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Why the new generation is not ready yet, as far as anybody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// Whether the replaced generation could take new connections again.
    #[serde(default)]
    pub can_go_back: bool,
    /// Seconds that the new generation has left to prove itself.
    #[serde(default)]
    pub settling_seconds: Option<f64>,
    /// Open flows of the replaced generation.
    pub flows_left: Option<u64>,
    /// How long all of them have been idle at least, in seconds.
    pub idle_seconds: Option<f64>,
    /// Seconds until the drain is ended by force.
    pub deadline_seconds: Option<f64>,
    /// Queued and half-open connections that were waited for: the most that were seen at once.
    #[serde(default)]
    pub waited: u64,
    /// Seconds for which the replaced generation, which has drained, is kept to fall back to.
    #[serde(default)]
    pub standby_seconds: Option<f64>,
    /// Who serves, where one rollout was asked for and it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Serving>,
    /// The new generation's last output, where the rollout failed.
    pub output: Vec<String>,
}

impl RolloutView {
    /// How it ended, if it has.
    pub const fn outcome(&self) -> Option<&Outcome> {
        match &self.status {
            Status::Ended(outcome) => Some(outcome),
            Status::MakingReady | Status::Settling | Status::Draining => None,
        }
    }
}
