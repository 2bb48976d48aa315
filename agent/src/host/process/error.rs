//! What can go wrong with a process.

use std::io;

use procfs::ProcError;
use rustix::io::Errno;
use thiserror::Error;

use super::Pid;

/// Why something about a process could not be done.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// It has exited, or another process has its number.
    #[error("process `{pid}` is gone")]
    Gone {
        /// Its number.
        pid: Pid,
    },
    /// The kernel gave no descriptor of it.
    #[error("cannot open process `{pid}`")]
    Open {
        /// Its number.
        pid: Pid,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Its files below `/proc` could not be read or understood.
    #[error("cannot read {what} of process `{pid}`")]
    Read {
        /// Its number.
        pid: Pid,
        /// Which of its properties.
        what: &'static str,
        /// Why.
        #[source]
        source: ProcError,
    },
    /// The system did not let its files below `/proc` be read.
    #[error("cannot read {what} of process `{pid}`")]
    Unreadable {
        /// Its number.
        pid: Pid,
        /// Which of its properties.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Its exit could not be watched.
    #[error("watch process `{pid}` for its exit")]
    Poll {
        /// Its number.
        pid: Pid,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The signal was not sent.
    #[error("send signal `{signal}` to process `{pid}`")]
    Signal {
        /// Its number.
        pid: Pid,
        /// The signal's number.
        signal: i32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Its end could not be asked for.
    #[error("ask how process `{pid}` ended")]
    Reap {
        /// Its number.
        pid: Pid,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Its rights come from the file of its program: nobody knows who gave it what it shows.
    #[error(
        "process `{pid}` executed a set-user-ID or set-group-ID program (its real user is {real}, its effective one {effective}): neither its \
         rights nor its arguments and environment are believed"
    )]
    SetId {
        /// Its number.
        pid: Pid,
        /// Its real user.
        real: u32,
        /// Its effective user.
        effective: u32,
    },
    /// It has executed another program while it was looked at.
    #[error("process `{pid}` became another program while it was looked at")]
    Changed {
        /// Its number.
        pid: Pid,
    },
    /// The list of processes could not be read.
    #[error("list the machine's processes")]
    List(#[source] io::Error),
}

impl ProcessError {
    /// Reading failed; a file that is not there (any more) means that the process is not.
    pub(in crate::host) fn reading(pid: Pid, what: &'static str, source: ProcError) -> Self {
        match source {
            ProcError::NotFound(_) => Self::Gone { pid },
            ProcError::Io(ref error, _)
                if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
            {
                Self::Gone { pid }
            }
            ProcError::Io(source, _) => Self::Unreadable { pid, what, source },
            _ => Self::Read { pid, what, source },
        }
    }
}
