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
//! and may block for as long as the kernel takes. The asynchronous side (`server`, `watch`) only waits for descriptors.

mod again;
mod agent;
mod also;
mod asked;
mod attach;
mod attribute;
mod build;
mod clock;
mod confined;
mod control_socket;
mod descriptors;
mod detach;
mod effects;
mod endpoints;
mod explain;
mod family;
mod few;
mod flows;
mod found;
mod groups;
mod held_ports;
mod inherit;
mod introduce;
mod journal;
mod launch;
mod launching;
mod leaving;
mod listeners;
mod log_watch;
mod logs;
mod message;
mod observe;
mod others;
mod outstanding;
mod overrun;
mod own_program;
mod pid_namespace;
mod presence;
mod preview;
mod probe;
mod problems;
mod processes;
mod queued;
mod refresh;
mod removals;
pub mod repair;
mod returns;
mod search;
mod seen;
mod select;
mod server;
mod serving;
mod settling;
mod shared_names;
mod sharing;
mod start;
mod starters;
mod state_file;
mod step;
mod successor;
mod troubles;
mod undo;
mod upgrade;
mod views;
mod watch;
mod who;
mod working_directory;

pub use self::{
    start::{
        Lock, Options, Other, examine_directory, examine_pin_directory, preflight,
        private_directory, refuse_directory_of_others, run,
    },
    state_file::{StateFile, StateFileError},
    step::Step,
};
