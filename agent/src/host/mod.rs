//! What the agent asks of the machine, and does to it, apart from BPF.
//!
//! - [`sock_diag`]: which listeners and flows there are, as the kernel tells it
//!
//! Every function here is synchronous and may block for as long as the kernel takes: an asynchronous caller puts it on
//! a thread of its own.

pub mod sock_diag;
