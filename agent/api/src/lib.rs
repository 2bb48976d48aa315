//! What goes over the control socket: HTTP/JSON, the same types on both ends.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/agent` | [`AgentView`] |
//! | `GET /v1/services` | [`Services`] |
//! | `POST /v1/services` ([`AttachRequest`]) | [`Attached`] |
//! | `GET /v1/services/{name or port}` | [`ServiceView`] |
//! | `DELETE /v1/services/{name or port}` | [`Detached`] |
//! | `POST /v1/services/{…}/upgrade` ([`UpgradeRequest`]) | [`UpgradeAnswer`] |
//! | `POST /v1/services/{…}/undo` ([`UndoRequest`]) | [`RolloutView`] |
//! | `GET /v1/services/{…}/flows` | [`Flows`] |
//! | `GET /v1/services/{…}/history` | [`History`] |
//! | `GET /v1/services/{…}/rollouts/{id}` | [`RolloutView`] |
//! | `GET /v1/services/{…}/rollouts/{id}/progress` | server-sent events, each a [`RolloutView`], until it has ended |
//! | `GET /v1/explain?local=ADDRESS:PORT[&remote=ADDRESS:PORT]` | [`Explanation`] |
//! | `GET /v1/events[?follow=true]` | the last events, or server-sent events, each an [`EventView`] |
//!
//! Every failure is an [`Problem`] with a matching HTTP status.

#![forbid(unsafe_code)]

pub mod client;
mod event;
mod exit;
mod problem;
mod request;
mod rollout;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
mod selected;
mod serving;
pub mod trust;
mod view;

pub use event::{EventKind, EventView, Events};
pub use exit::ExitCode;
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

/// Version of these types; part of every answer. Fields are only ever added within one version.
pub const SCHEMA: u32 = 1;
