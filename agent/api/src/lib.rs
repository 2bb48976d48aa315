//! What goes over the control socket: HTTP/JSON, the same types on both ends.
//!
//! [`Operation`] is what can be asked for, and where. `docs/api` has an OpenAPI document of it, and the JSON schema of each type, both
//! made from these types by `cargo xtask api`.
//!
//! Times are text: spans as people write them (`2s 500ms`), moments by RFC 3339, in UTC. A stream is one of server-sent events.
//!
//! Every failure is a [`Problem`] with a matching HTTP status. Who asks in another version of the API is told so by one.

#![forbid(unsafe_code)]

pub mod client;
mod event;
mod exit;
mod operation;
mod problem;
mod request;
mod rollout;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
#[cfg(feature = "schema")]
pub mod schema;
mod selected;
mod serving;
pub mod trust;
mod view;

pub use event::{EventKind, EventView, Events};
pub use exit::ExitCode;
pub use operation::{Operation, nothing_at};
pub use problem::{Problem, ProblemKind};
pub use request::{
    AttachRequest, Command, NamespacesOf, NewGeneration, RequestId, UndoRequest, UpgradeRequest,
};
pub use rollout::RolloutView;
pub use selected::Selected;
pub use serving::{Serving, Stranger};
pub use view::{
    AgentView, Attached, Begun, Detached, Explanation, FlowView, Flows, GenerationState,
    GenerationView, History, ListenerView, Offer, ServiceState, ServiceView, Services, Unchanged,
    UpgradeAnswer, UpgradePreview, Waiting,
};

/// Version of these types; part of every path and of every answer. Within one version paths, and fields that have a default, may be
/// added, and nothing else changes: what a client does not know it passes over.
pub const SCHEMA: u32 = 1;
