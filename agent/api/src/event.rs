//! What happened.

use std::time::SystemTime;

use agent_terms::{GenerationNumber, Moment, ServiceName};
use serde::{Deserialize, Serialize};

/// The last events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Events {
    /// Version of these types.
    pub schema: u32,
    /// Oldest first.
    pub events: Vec<EventView>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventView {
    /// Version of these types.
    pub schema: u32,
    /// Counts up while the agent runs.
    pub sequence: u64,
    /// When, by the clock of the machine.
    #[serde(with = "Moment")]
    pub at: SystemTime,
    /// The service; `None` where it is about the agent itself.
    #[serde(default)]
    pub service: Option<ServiceName>,
    /// The generation, where it is about one.
    pub generation: Option<GenerationNumber>,
    /// What kind.
    pub kind: EventKind,
    /// For people.
    pub message: String,
}

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A port was taken charge of.
    Attached,
    /// A port was handed back.
    Detached,
    /// A generation was launched or named.
    Launched,
    /// New connections go to another generation.
    Switched,
    /// A new generation has proved itself.
    Settled,
    /// A replaced generation's kernel queues are empty, or their time is up.
    Cleared,
    /// A replaced generation has drained, and is kept to fall back to.
    Kept,
    /// Addresses were taken up that the primary serves too, or given up that it does not.
    EndpointsChanged,
    /// Connections moved to another listener, because theirs closed before accepting them.
    Moved,
    /// A generation was told to end.
    Signalled,
    /// A generation is gone.
    Gone,
    /// A rollout has ended.
    Ended,
    /// Something needs attention.
    Warning,
    /// What needed attention is over.
    Recovered,
}
