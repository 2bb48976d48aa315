//! The life of a service's generations, as pure decisions: no I/O, no clock, no randomness.
//!
//! [`Service::apply`] takes what happened and when, changes the state, and returns the [`Effect`]s that make the world follow.
//! The daemon writes the new state down before it executes them, so that after a crash [`Service::resume`] can compare what
//! was decided with what the world shows. A `Launch` is never resumed, its outcome is looked up.
//!
//! ```text
//!  Starting ──▶ Primary ──▶ Clearing ──▶ Draining ──▶ Parting ──▶ Finishing, Stopping ──▶ gone
//!                │  ▲           │         │ ▲  ▲         │
//!                ▼  │           │         ▼ │  └─────────┤ flows have come
//!              Dead │           │       Standby          │
//!                   │           │         │              │
//!                   └───────────┴─────────┴──────────────┘ undo, or the primary died, is deaf or stuck
//! ```
//!
//! | from | to | when |
//! | --- | --- | --- |
//! | `Starting` | `Primary` | it has accepted a connection on every endpoint, or listens there, if that is to be enough |
//! | `Starting` | gone, or `Stopping` if it lives | it failed, exited, was undone, or `--timeout` is over |
//! | `Primary` | `Clearing` | another one takes over |
//! | `Primary` | `Dead` | it exited, and nobody can take over |
//! | `Clearing` | `Draining` | its queues are empty, or `--queue-timeout` is over |
//! | `Draining` | `Standby` | it has no flow left, or all are idle, but `--settle` or `--keep-old` is not over |
//! | `Standby` | `Draining` | both are over |
//! | `Draining` | `Parting` | as to `Standby`, and both are over; with flows at the deadline, or if the drain is graceful |
//! | `Parting` | `Finishing` (graceful), `Stopping` | the last look found nothing that is waited for |
//! | `Finishing` | `Stopping` | it has not ended at the deadline, and is killed |
//!
//! A rollout is `MakingReady`, `Settling`, `Draining` and ended. While it settles the replaced generation is told nothing,
//! whatever else was asked for: the new one has answered nobody yet but the agent.
//!
//! INVARIANT: steering changes before anything is taken away. A generation that served is signalled only after `Parting`:
//! steering had forgotten it, and then its queues were seen empty, or their time, which it has once, was up.
//! Until the signal is decided it can become the primary again.

#![forbid(unsafe_code)]

mod deaths;
mod drain;
mod event;
mod facts;
mod generation;
mod history;
mod phase;
mod plan;
mod rebuilt;
mod record;
mod restart;
mod resume;
mod service;
mod settling;
#[cfg(any(test, feature = "simulator"))]
#[cfg_attr(not(test), expect(dead_code, reason = "the tests play more than what gives examples"))]
pub mod simulator;
mod steering;
#[cfg(test)]
mod tests;
mod upgrade;

/// The reason of one that somebody took back.
pub const UNDONE: &str = "it was taken back (`agent undo`)";

pub use self::{
    event::{Effect, Event, Flows, Listening, Queues, Refusal},
    generation::{Generation, ListenerRecord, Origin, PortHold},
    phase::{Phase, Stop},
    plan::{DrainPlan, DrainPolicy, Plan, Readiness, Timestamp, spoken},
    record::{Kind, Outcome, Rollout, RolloutId, Status},
    resume::Seen,
    service::Service,
    steering::Targets,
};
