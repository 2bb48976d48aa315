//! How every command ends.

use serde::{Deserialize, Serialize};

/// Exit codes; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or already so.
    Done = 0,
    /// Failed at run time.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No such service, not attached, or no agent is running.
    NotFound = 3,
    /// Something that is needed is missing: a permission, a kernel feature, a mount, a generation to go back to. The message
    /// says how to get it.
    Preflight = 4,
    /// The new generation did not become ready: the old one still serves.
    NotReady = 5,
    /// Switched, but flows of the old generation ended with it: the drain deadline passed, it died, or it was killed and
    /// does not end.
    FlowsCut = 6,
    /// Another change is under way, or the generation was not the expected one.
    Locked = 7,
    /// Rolled back after the switch.
    RolledBack = 8,
    /// `status --exit-code`: a rollout is under way.
    RollingOut = 10,
    /// `status --exit-code`: a service has no live generation, or steering falls back.
    Degraded = 11,
    /// Interrupted while waiting: what was begun goes on.
    Interrupted = 130,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
