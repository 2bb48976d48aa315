//! Waits for everything that is a descriptor.
//!
//! - `log_watch`: notices that a server has written something
//! - `removals`: notices that something was removed from the directories that the agent lives in
//! - `watcher`: waits for everything that is a descriptor, and puts what happens into the agent's queue

mod log_watch;
mod removals;
pub(super) mod watcher;
