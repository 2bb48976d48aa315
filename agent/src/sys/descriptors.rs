//! A thread's own table of open files.

#![expect(unsafe_code, reason = "a system call without a wrapper")]

use std::io;

use nix::{errno::Errno, libc};

/// Gives the calling thread a table of its own, with standard input, output and error in it and nothing else
/// (`close_range(2)`, `CLOSE_RANGE_UNSHARE`).
///
/// From then on `/proc/self/fd` is not the table of this thread; `/proc/thread-self/fd` is.
///
/// # Errors
///
/// When the kernel has no memory for it.
pub(crate) fn keep_standard_ones_only() -> io::Result<()> {
    const FIRST_OTHER: libc::c_uint = 3;
    // SAFETY: the call takes numbers only. Whoever owns a descriptor that is closed here has it in the table of the process,
    // which stays as it is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_OTHER,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}
