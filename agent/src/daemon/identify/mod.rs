//! Which processes are the server of a port, and who else has a part in it.
//!
//! - `also`: what else a server does and ends with it, who brings it back, and who only looks on
//! - `asked`: why a server is looked for, which tells who is surely not a part of it
//! - `error`: why a server is not found, or not taken charge of
//! - `fixes`: what to do about those
//! - `found`: a server that runs, as the kernel maps and the state have it
//! - `others`: what else has a say in who gets the connections of a port
//! - `own_program`: a server that chooses among its listeners by a program of its own (`SO_ATTACH_REUSEPORT_CBPF`, `_EBPF`)
//! - `pid_namespace`: PID namespaces that end with the old generation, and would take its successor along
//! - `search`: looks for a server that somebody has named, on the thread that asks
//! - `who`: who the server is, among all processes that hold a listener

pub(super) mod also;
pub(super) mod asked;
pub(super) mod error;
mod fixes;
pub(super) mod found;
mod others;
pub(super) mod own_program;
mod pid_namespace;
pub(super) mod search;
pub(super) mod who;
