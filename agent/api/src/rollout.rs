//! One rollout, as it is shown.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use agent_rollout::{Kind, Outcome, RolloutId, Status};
use agent_terms::{GenerationNumber, Moment, OptionalSpan, Release, ServiceName};
use serde::{Deserialize, Serialize};

use super::Serving;

/// One rollout, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// When it began, by the clock of the machine.
    #[serde(with = "Moment")]
    pub began: SystemTime,
    /// From its begin to the switch.
    #[serde(with = "OptionalSpan")]
    pub switched_after: Option<Duration>,
    /// From its begin to its end.
    #[serde(with = "OptionalSpan")]
    pub ended_after: Option<Duration>,
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
    /// What the new generation has left to prove itself.
    #[serde(default, with = "OptionalSpan")]
    pub settles_in: Option<Duration>,
    /// Open flows of the replaced generation.
    pub flows_left: Option<u64>,
    /// How long all of them have been idle at least.
    #[serde(with = "OptionalSpan")]
    pub idle: Option<Duration>,
    /// How long until the drain is ended by force.
    #[serde(with = "OptionalSpan")]
    pub deadline_in: Option<Duration>,
    /// Queued and half-open connections that were waited for: the most that were seen at once.
    #[serde(default)]
    pub waited: u64,
    /// For how long the replaced generation, which has drained, is kept to fall back to.
    #[serde(default, with = "OptionalSpan")]
    pub standby_for: Option<Duration>,
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
