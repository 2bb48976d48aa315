//! Keys of the kernel.

#![expect(unsafe_code, reason = "a system call without a wrapper")]

use std::io;

use nix::{errno::Errno, libc};

/// Begins a session keyring of our own, without a name and empty (`keyctl(2)`). A kernel without keys has none to give.
pub(crate) fn new_session() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: no name is passed.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) };
    match Errno::result(answer) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
