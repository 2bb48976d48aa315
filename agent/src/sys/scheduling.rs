//! How a process is scheduled, as far as no crate we use can ask or say.

#![expect(unsafe_code, reason = "system calls without a wrapper")]

use std::io;

use nix::{errno::Errno, libc};
use serde::{Deserialize, Serialize};

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
    // For a class that takes a right, the kernel asks for that whatever it was before (`ioprio_check_cap`).
    if io_priority(0)? == priority {
        return Ok(());
    }
    // SAFETY: it takes numbers only.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, priority) };
    Errno::result(answer).map(drop).map_err(io::Error::from)
}

/// How a process shares the processors (`struct sched_attr` of `sched_setattr(2)`, without what is about performance hints).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// `SCHED_ATTR_SIZE_VER0`.
const SIZE: u32 = size_of::<Scheduling>() as u32;

/// That of a process.
pub(crate) fn of(pid: i32) -> io::Result<Scheduling> {
    let mut scheduling = Scheduling::default();
    // SAFETY: the kernel writes at most the size that it is told, which is that of the value.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_getattr, pid, &raw mut scheduling, SIZE, 0) };
    Errno::result(answer)?;
    Ok(Scheduling { size: SIZE, ..scheduling })
}

/// Sets our own.
pub(crate) fn set(scheduling: &Scheduling) -> io::Result<()> {
    let scheduling = Scheduling { size: SIZE, ..*scheduling };
    if of(0)? == scheduling {
        return Ok(());
    }
    // SAFETY: the kernel reads as many bytes as the value says that it has, and those it has.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const scheduling, 0) };
    Errno::result(answer).map(drop).map_err(io::Error::from)
}
