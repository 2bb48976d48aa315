//! The life of a service's generations, as pure decisions: no I/O, no clock, no randomness.
//!
//! [`Service::apply`] takes what happened and when, changes the state, and returns the [`Effect`]s that make the world follow.
//! The daemon writes the new state down before it executes them, so that after a crash [`Service::resume`] repeats what may
//! not have happened. Every effect but `Launch` can be repeated; a `Launch` is never resumed, its outcome is looked up.
//!
//! ```text
//!              Ready                 replaced              queues empty twice
//!  Starting ──────────▶ Primary ───────────────▶ Settling ────────────────────▶ Draining
//!     │                   ▲  │ Exited                │        (or --queue-timeout)  │ no flow left, all idle,
//!     │ Failed, Exited,   │  ▼                       │                              │ deadline, or graceful
//!     │ --timeout         │ Dead                     │                              ▼
//!     ▼                   └───── undo, or the ───────┴─────────────────────────▶ Stopping ──▶ gone
//!    gone                        primary died                                   (signalled)
//! ```
//!
//! INVARIANT: steering changes before anything is taken away. A generation is signalled only in `Stopping`, which is reached
//! only from `Draining` (its queues were seen empty, or their time was up) or when it never served.

mod drain;
mod generation;
mod plan;
mod record;
mod service;
#[cfg(test)]
mod tests;

pub use self::{
    generation::{Generation, ListenerRecord, Origin, Phase, PortHold},
    plan::{DrainPlan, DrainPolicy, Plan, Timestamp},
    record::{Kind, Outcome, Rollout, RolloutId, Status},
    service::{Effect, Event, Flows, Queues, Refusal, Service, Targets},
};
