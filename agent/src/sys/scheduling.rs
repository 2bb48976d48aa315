//! How a process is scheduled, as far as no crate we use can ask or say.

#![expect(unsafe_code, reason = "system calls without a wrapper")]

use std::io;

use nix::{errno::Errno, libc};

/// `IOPRIO_WHO_PROCESS`.
const PROCESS: libc::c_int = 1;

/// Class and level of the I/O of a process (`ioprio_get(2)`); 0 is our own.
pub(crate) fn io_priority(pid: i32) -> io::Result<i32> {
    // SAFETY: it takes numbers only.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_get, PROCESS, pid) };
    let priority = Errno::result(answer).map_err(io::Error::from)?;
    i32::try_from(priority).map_err(io::Error::other)
}

/// Sets our own (`ioprio_set(2)`).
pub(crate) fn set_io_priority(priority: i32) -> io::Result<()> {
    // SAFETY: it takes numbers only.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, priority) };
    Errno::result(answer).map(drop).map_err(io::Error::from)
}

/// Sets our own policy, with the priority that a real-time one has (`sched_setscheduler(2)`).
pub(crate) fn set_policy(policy: u32, priority: u32) -> io::Result<()> {
    let number = |value: u32| i32::try_from(value).map_err(io::Error::other);
    let parameters = libc::sched_param { sched_priority: number(priority)? };
    let policy = number(policy)?;
    // SAFETY: the kernel reads the parameters, which live until it returns. Not by the function of the C library: musl's
    // refuses to.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    Errno::result(answer).map(drop).map_err(io::Error::from)
}

/// Begins a session keyring of our own, without a name and empty (`keyctl(2)`). A kernel without keys has none to give.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: no name is passed.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) };
    match Errno::result(answer) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
