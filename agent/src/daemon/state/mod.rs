//! What outlives the agent (state file, journal), and what is wrong now.
//!
//! - `above`: the directories above its own that were made for it
//! - `clock`: the two clocks
//! - `journal`: what happened, for people
//! - `state_file`: what the agent knows besides the kernel maps
//! - `state_share`: how much of that may be of one service
//! - `troubles`: what is wrong around the agent now
//! - `whereabouts`: where an agent has its pins and control groups, as the state says

pub(super) mod above;
pub(super) mod clock;
pub(super) mod journal;
pub(super) mod state_file;
pub(super) mod state_share;
pub(super) mod troubles;
pub(super) mod whereabouts;
