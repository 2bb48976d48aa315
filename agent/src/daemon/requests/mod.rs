//! What is asked of the agent, one file for each request.
//!
//! - `answer`: which request is answered by whom
//! - `attach`: takes charge of a port that a server serves
//! - `detach`: hands a port back to the kernel
//! - `error`: why a request is refused
//! - `explain`: where a connection goes, and why
//! - `fixes`: what to do about that
//! - `preview`: what an upgrade would do, in words
//! - `select`: which service people mean
//! - `undo`: puts the previous generation back
//! - `upgrade`: brings a new generation in, and puts the previous one back
//! - `views`: what the operator sees

pub(super) mod answer;
mod attach;
mod detach;
pub(super) mod error;
mod explain;
mod fixes;
mod preview;
mod select;
mod undo;
pub(super) mod upgrade;
mod views;
