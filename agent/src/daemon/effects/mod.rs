//! What the rollout has decided, carried out.
//!
//! - `carry_out`: executes what the rollout decided, in order
//! - `endpoints`: addresses that a service takes up because its primary serves them too, and gives up for one that does not
//! - `held_ports`: the public ports of servers that listen elsewhere
//! - `outstanding`: what was decided and is not done yet
//! - `processes`: the processes of a generation
//! - `queued`: connections that nobody has accepted yet

pub(super) mod carry_out;
mod endpoints;
pub(super) mod held_ports;
pub(super) mod outstanding;
mod processes;
pub(super) mod queued;
