//! Who has started a generation, as far as that is remembered.

use agent_rollout::Timestamp;
use agent_terms::GenerationNumber;
use serde::{Deserialize, Serialize};

use crate::{daemon::identify::found, host::starter::Starter};

/// Who has started a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StarterOf {
    pub(super) generation: GenerationNumber,
    pub(super) starter: Starter,
    /// Until when the generation was to be there to fall back to.
    pub(super) not_before: Timestamp,
    /// Whether people know that it starts the server again and is left alone.
    pub(super) is_told: bool,
    /// How often it has started the server again, which was to end.
    pub(super) starts: u32,
}

impl StarterOf {
    /// That it has more to do than to start the server again.
    pub(super) fn beside(&self) -> String {
        format!(
            "process {} starts the server of generation {} again, beside the one that serves, and is left alone because it has \
             more to do: have it stop that, or end it",
            found::describe(self.starter.pid()),
            self.generation
        )
    }
}
