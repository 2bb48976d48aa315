//! Waits for everything that is a descriptor.
//!
//! - `removals`: notices that something was removed from the directories that the agent lives in
//! - `watcher`: waits for everything that is a descriptor, and puts what happens into the agent's queue

mod removals;
pub(super) mod watcher;
