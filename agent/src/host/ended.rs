//! Why a process of ours ended that could not say so itself.

use std::fmt;

use nix::libc;

/// What ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A filter of system calls that kills whoever makes one (SIGSYS).
    Filtered,
    /// Whoever cannot have the memory that it needs gives up (SIGABRT); a panic does the same in a release.
    GaveUp,
    /// Somebody, or the kernel for want of memory (SIGKILL).
    Killed,
    /// Another signal.
    Signal(i32),
}

impl Ended {
    /// By a signal of this number.
    pub const fn by(signal: i32) -> Self {
        match signal {
            libc::SIGSYS => Self::Filtered,
            libc::SIGABRT => Self::GaveUp,
            libc::SIGKILL => Self::Killed,
            other => Self::Signal(other),
        }
    }

    /// What to do about it.
    pub const fn fix(self) -> &'static str {
        match self {
            Self::Filtered => super::seccomp::Filtered::FIX,
            Self::GaveUp | Self::Killed => MORE_MEMORY,
            Self::Signal(_) => {
                "raise the limit that this signal is about (`ulimit -a`), or see who sends it"
            }
        }
    }
}

/// Where memory was asked for in vain.
pub const MORE_MEMORY: &str = "let the agent have more memory: `ulimit -v` and `ulimit -d`, `LimitAS=`, `LimitDATA=` and `MemoryMax=` in its unit, `memory.max` of its control group or container";

/// What happened to it, behind its name.
impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filtered => formatter.write_str("was killed by a filter of system calls (seccomp)"),
            Self::GaveUp => formatter.write_str("gave up (SIGABRT)"),
            Self::Killed => formatter.write_str(
                "was killed (SIGKILL): by somebody, or by the kernel where a limit of memory was reached",
            ),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(formatter, "was ended by {signal}"),
                Err(_) => write!(formatter, "was ended by signal {number}"),
            },
        }
    }
}
