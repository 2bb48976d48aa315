//! A process by its descriptor alone.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::PollFlags,
    io::Errno,
    process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{Pid, ProcessError, readable_within, to_rustix};

/// A process that had this number when it was opened. What is done to it can hit no other one.
#[derive(Debug)]
pub struct Handle {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Handle {
    /// Takes hold of the process that has this number now.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] if there is none.
    pub fn open(pid: Pid) -> Result<Self, ProcessError> {
        let pidfd =
            pidfd_open(to_rustix(pid)?, PidfdFlags::empty()).map_err(|number| match number {
                Errno::SRCH => ProcessError::Gone { pid },
                _ => ProcessError::Open { pid, source: number.into() },
            })?;
        Ok(Self { pid, pidfd })
    }

    /// Its number.
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it runs: not if it has exited and waits for its parent.
    ///
    /// # Errors
    ///
    /// When the kernel cannot poll the descriptor.
    pub fn is_alive(&self) -> Result<bool, ProcessError> {
        self.has_exited_within(Duration::ZERO).map(|exited| !exited)
    }

    /// Waits for the exit, at most for `patience`; says whether it has come.
    ///
    /// # Errors
    ///
    /// When the kernel cannot poll the descriptor.
    pub fn has_exited_within(&self, patience: Duration) -> Result<bool, ProcessError> {
        readable_within(&self.pidfd, PollFlags::IN, patience)
            .map_err(|source| ProcessError::Poll { pid: self.pid, source })
    }

    /// Sends a signal to this very process, never to a later one of its number.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] if it has exited.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let pid = self.pid;
        pidfd_send_signal(&self.pidfd, signal).map_err(|number| match number {
            Errno::SRCH => ProcessError::Gone { pid },
            _ => ProcessError::Signal { pid, signal: signal.as_raw(), source: number.into() },
        })
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
