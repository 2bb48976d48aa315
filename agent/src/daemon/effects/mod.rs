//! What the rollout has decided, carried out.
//!
//! - `carry_out`: executes what the rollout decided, in order
//! - `endpoints`: addresses that a service takes up because its primary serves them too, and gives up for one that does not
//! - `held_ports`: the sockets that hold the public ports of a service
//! - `hold_ports`: the public ports of servers that listen elsewhere
//! - `home`: the way back of processes, to the control group in which those of their service were first
//! - `moves`: how many connections the kernel has moved, and what was made of that
//! - `outstanding`: what was decided and is not done yet
//! - `privileged`: processes of a generation that its user may not end
//! - `processes`: the processes of a generation
//! - `queued`: connections that nobody has accepted yet
//! - `retry`: what does not work is told once, and tried again

pub(super) mod carry_out;
mod endpoints;
pub(super) mod held_ports;
mod hold_ports;
mod home;
pub(super) mod moves;
pub(super) mod outstanding;
mod privileged;
mod processes;
pub(super) mod queued;
mod retry;
