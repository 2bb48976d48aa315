//! Signals for which rustix has no safe constructor.

#![expect(unsafe_code, reason = "rustix makes real-time signals without a check only")]

use rustix::process;

use crate::service::Signal;

/// The signal for a system call of rustix.
pub(crate) fn to_rustix(signal: Signal) -> process::Signal {
    // SAFETY: the number is from 1 to 64, which the kernel knows. Those that a C library keeps for itself are sent to other
    // processes only, whose business they are.
    unsafe { process::Signal::from_raw_unchecked(signal.number()) }
}
