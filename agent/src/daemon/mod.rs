//! The agent itself: the single writer of all state.
//!
//! ```text
//!   HTTP requests ──┐                          ┌── rollout   what to do (pure)
//!   kernel reports ─┼──▶ one queue ──▶ Agent ──┼── datapath  maps and programs
//!   process exits ──┘     (this file) (agent)  └── host      sockets, processes, cgroups
//!   deadlines ──────────────────────────▲
//! ```
//!
//! `agent::Agent` runs on a thread of its own and takes one message after the other, so that nothing it does needs a lock,
//! and may block for as long as the kernel takes. The asynchronous side (`control`, `watch`) only waits for descriptors.
//!
//! - `agent`: what it knows, and its loop; `feed`: one event's way from a rollout to the world; `timetable`: what is due when; `course`:
//!   how it ends
//! - `control`: how people reach it
//! - `requests`: what they ask
//! - `identify`: which processes are a port's server
//! - `launch`: what the next generation is started with
//! - `looks`: what is looked at when, and what was seen
//! - `effects`: what the rollout has decided, carried out
//! - `step`: the doors through which every change of the world goes, where tests let it fail
//! - `state`: what is written down, and what is wrong now
//! - `watch`: what is waited for
//! - `world_error`: why the world could not be looked at or changed
//! - `start`, `repair`: how an agent begins, and what is mended while none runs

mod agent;
mod control;
mod course;
mod effects;
mod feed;
mod few;
mod identify;
mod launch;
mod looks;
mod memory;
mod problems;
pub mod repair;
mod requests;
mod start;
mod state;
mod step;
mod timetable;
mod watch;
mod world_error;

pub use self::{
    problems::unwritten,
    start::{
        DirectoryError, Lock, Options, Other, PASS_IN, examine_directory, examine_group,
        examine_pin_directory, examine_places, preflight, private_directory, run,
    },
    state::{
        above::Above,
        state_file::{StateFile, StateFileError},
    },
    step::Step,
};
