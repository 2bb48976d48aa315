//! How people reach the agent: the control socket, HTTP on it, and what is asked, as messages to the single writer.
//!
//! - `descriptors`: what it looks like when the agent may open no more files
//! - `message`: what the agent is told or asked
//! - `server`: the control socket
//! - `socket`: the listening half of the control socket, which can be bound again and works when descriptors run out

mod descriptors;
pub(super) mod message;
pub(super) mod server;
pub(super) mod socket;
