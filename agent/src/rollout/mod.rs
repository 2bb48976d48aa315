//! The life of a service's generations, as pure decisions: no I/O, no clock, no randomness.
//!
//! [`Service::apply`] takes what happened and when, changes the state, and returns the [`Effect`]s that make the world follow.
//! The daemon writes the new state down before it executes them, so that after a crash [`Service::resume`] can compare what
//! was decided with what the world shows. A `Launch` is never resumed, its outcome is looked up.
//!
//! ```text
//!           Ready            replaced              queues empty twice
//!  Starting ─────▶ Primary ───────────▶ Settling ───────────────────────▶ Draining ◀────────────┐
//!     │             ▲   │ Exited           │      (or --queue-timeout)     │    │ drained       │ --keep-old
//!     │ Failed,     │   ▼                  │                               │    │ too early     │ is over
//!     │ Exited,     │  Dead                │       no flow left, all idle, │    └────▶ Standby ─┤
//!     │ --timeout   │                      │       deadline, or graceful   ▼             │      │ flows have come
//!     │             └── undo, or the ──────┴─────────────────────────── Parting ─────────┼──────┘
//!     │                 primary died or                                     │ last look  │
//!     │                 is deaf ◀───────────────────────────────────────────┼────────────┘
//!     ▼                                                                     ▼
//!    gone ◀── Exited ────────────────────────────────────────── Finishing, Stopping (signalled, then killed)
//! ```
//!
//! INVARIANT: steering changes before anything is taken away. A generation that served is signalled only after `Parting`:
//! steering had forgotten it, and then its queues were seen empty, or their time was up. Until the signal is decided it can
//! become the primary again.

mod deaths;
mod drain;
mod event;
mod generation;
mod history;
mod plan;
mod record;
mod resume;
mod service;
mod steering;
#[cfg(test)]
mod tests;
mod upgrade;

pub use self::{
    event::{Effect, Event, Flows, Queues, Refusal},
    generation::{Generation, ListenerRecord, Origin, Phase, PortHold},
    plan::{DrainPlan, DrainPolicy, Plan, Timestamp},
    record::{Kind, Outcome, Rollout, RolloutId, Status},
    resume::Seen,
    service::Service,
    steering::Targets,
};
