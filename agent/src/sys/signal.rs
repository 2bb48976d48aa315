//! What rustix has no safe function for.

#![expect(
    unsafe_code,
    reason = "rustix makes real-time signals without a check only, and sets no handler"
)]

use agent_terms::Signal;
use nix::sys::signal::{SigHandler, Signal as Standard, signal};
use rustix::process;

/// The signal for a system call of rustix.
pub(crate) fn to_rustix(signal: Signal) -> process::Signal {
    // SAFETY: the number is from 1 to 64, which the kernel knows. Those that a C library keeps for itself are sent to other
    // processes only, whose business they are.
    unsafe { process::Signal::from_raw_unchecked(signal.number()) }
}

/// Has writing beyond `RLIMIT_FSIZE` fail (EFBIG) instead of ending the process: a failure can be told of. Servers do not inherit it,
/// the launcher gives them all defaults.
pub(crate) fn survive_file_size_limit() {
    // SAFETY: there is no handler that could run at a bad moment.
    let set = unsafe { signal(Standard::SIGXFSZ, SigHandler::SigIgn) };
    set.expect("the signal exists");
}
