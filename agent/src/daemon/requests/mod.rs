//! What is asked of the agent, one file for each request.
//!
//! - `answer`: which request is answered by whom
//! - `attach`: takes charge of a port that a server serves
//! - `detach`: hands a port back to the kernel
//! - `explain`: where a connection goes, and why
//! - `preview`: what an upgrade would do, in words
//! - `select`: which service people mean
//! - `undo`: puts the previous generation back
//! - `upgrade`: brings a new generation in, and puts the previous one back
//! - `views`: what the operator sees

pub(super) mod answer;
mod attach;
mod detach;
mod explain;
mod preview;
mod select;
mod undo;
pub(super) mod upgrade;
mod views;
