//! A process, by its number and its birth.

use std::{fmt, num::NonZeroI32};

use serde::{Deserialize, Serialize};

/// The number of a process, in our PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pid(NonZeroI32);

impl Pid {
    /// Nothing for 0 and for negative numbers, which name process groups in some system calls.
    pub fn new(number: i32) -> Option<Self> {
        NonZeroI32::new(number).filter(|number| number.is_positive()).map(Self)
    }

    /// Our own number.
    pub fn ours() -> Self {
        let number = std::process::id().try_into().ok().and_then(Self::new);
        number.expect("the kernel gives 22 bits at most (`PID_MAX_LIMIT`), and no zero")
    }

    /// The number.
    pub fn get(self) -> i32 {
        self.0.get()
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a process started, in clock ticks since the machine did. Together with the number it is
/// unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartTime(pub u64);

/// What is written down of a process to find it again, or to know that it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: Pid,
    /// When it started.
    pub start_time: StartTime,
}
