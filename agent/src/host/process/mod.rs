//! One process, held so that it can never be mistaken for another with the same number.

mod error;
mod handle;
pub(super) mod texts;

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::{Duration, Instant},
};

use procfs::{Current, ProcError};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Signal, WaitId, WaitIdOptions, waitid},
};
use serde::{Deserialize, Serialize};

pub(super) use self::texts::{living_thread, name, stat, status, text_of, words};
pub use agent_terms::{Pid, ProcessIdentity, StartTime};

pub use self::{
    error::ProcessError,
    handle::Handle,
    texts::{
        command_line, is_ending, is_stopped, program_of, tasks, tracer_of, whole_command_line,
    },
};

fn to_rustix(pid: Pid) -> Result<rustix::process::Pid, ProcessError> {
    rustix::process::Pid::from_raw(pid.get()).ok_or(ProcessError::Gone { pid })
}

/// A process that was alive when it was opened. Readable as a descriptor once it has exited.
#[derive(Debug)]
pub struct Process {
    handle: Handle,
    start_time: StartTime,
}

impl Process {
    /// Takes hold of the process that has this number now.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] if there is none, or it has exited and only waits for its parent.
    pub fn open(pid: Pid) -> Result<Self, ProcessError> {
        let handle = Handle::open(pid)?;
        let start_time = StartTime(stat(pid)?.starttime);
        // Alive only now: then the number cannot have changed hands between the two steps above.
        match handle.is_alive()? {
            true => Ok(Self { handle, start_time }),
            false => Err(ProcessError::Gone { pid }),
        }
    }

    /// Takes hold of a process that was written down earlier.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] also if another process has the number now.
    pub fn reopen(identity: ProcessIdentity) -> Result<Self, ProcessError> {
        let process = Self::open(identity.pid)?;
        if process.identity() == identity {
            Ok(process)
        } else {
            Err(ProcessError::Gone { pid: identity.pid })
        }
    }

    /// Whether a process that was written down earlier runs.
    ///
    /// # Errors
    ///
    /// When that cannot be found out, for example for want of a descriptor. It may run then.
    pub fn lives(identity: ProcessIdentity) -> Result<bool, ProcessError> {
        match Self::reopen(identity).and_then(|process| process.is_alive()) {
            Err(ProcessError::Gone { .. }) => Ok(false),
            answer => answer,
        }
    }

    /// Takes hold of a child, of ours or our launcher's, that nobody has reaped: it may have exited, but its number is
    /// its own until then.
    pub(super) fn of_child(pid: Pid) -> Result<Self, ProcessError> {
        let handle = Handle::open(pid)?;
        Ok(Self { handle, start_time: StartTime(stat(pid)?.starttime) })
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.handle.pid()
    }

    /// It, without the moment at which it started.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// When it started.
    pub fn start_time(&self) -> StartTime {
        self.start_time
    }

    /// What to write down of it.
    pub fn identity(&self) -> ProcessIdentity {
        ProcessIdentity { pid: self.pid(), start_time: self.start_time }
    }

    /// For how long it has run.
    ///
    /// # Errors
    ///
    /// When the machine's uptime cannot be read.
    pub fn age(&self) -> Result<Duration, ProcessError> {
        let uptime = procfs::Uptime::current()
            .map_err(|source| self.unreadable("the machine's uptime", source))?;
        let ticks = procfs::ticks_per_second().max(1);
        let started = Duration::from_millis(self.start_time.0.saturating_mul(1000) / ticks);
        Ok(uptime.uptime_duration().saturating_sub(started))
    }

    /// Whether it runs: not if it has exited and waits for its parent.
    ///
    /// # Errors
    ///
    /// When the kernel cannot poll the descriptor.
    pub fn is_alive(&self) -> Result<bool, ProcessError> {
        self.handle.is_alive()
    }

    /// Waits for the exit, at most for `patience`; says whether it has come.
    ///
    /// # Errors
    ///
    /// When the kernel cannot poll the descriptor.
    pub fn has_exited_within(&self, patience: Duration) -> Result<bool, ProcessError> {
        self.handle.has_exited_within(patience)
    }

    /// Sends a signal to this very process, never to a later one of its number.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] if it has exited.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        self.handle.signal(signal)
    }

    /// How it ended, if it is our child and has; takes the zombie away. Can say so only once.
    ///
    /// # Errors
    ///
    /// When it is not our child.
    pub fn reap(&self) -> Result<Option<Ending>, ProcessError> {
        let status =
            waitid(WaitId::PidFd(self.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
                .map_err(|number| ProcessError::Reap { pid: self.pid(), source: number.into() })?;
        Ok(status.and_then(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Ending::Exited(code)),
            (None, Some(signal)) => Some(Ending::Killed(signal)),
            (None, None) => None,
        }))
    }

    fn unreadable(&self, what: &'static str, source: ProcError) -> ProcessError {
        ProcessError::Read { pid: self.pid(), what, source }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl AsRawFd for Process {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// Whether `descriptor` reports one of `flags` within `patience`.
pub(super) fn readable_within(
    descriptor: impl AsFd,
    flags: PollFlags,
    patience: Duration,
) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&descriptor, flags)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Err(number) => return Err(number.into()),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> (Child, Process) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::new(child.id().try_into().unwrap()).unwrap();
        (child, Process::open(pid).unwrap())
    }

    #[test]
    fn a_process_is_watched_signalled_and_reaped() {
        let (_child, process) = sleeper();
        assert!(process.is_alive().unwrap());
        assert!(process.age().unwrap() < Duration::from_secs(30));
        assert_eq!(process.reap().unwrap(), None);
        process.signal(Signal::TERM).unwrap();
        assert!(process.has_exited_within(Duration::from_secs(10)).unwrap());
        assert!(
            matches!(Process::open(process.pid()), Err(ProcessError::Gone { .. })),
            "a zombie is gone"
        );
        assert_eq!(process.reap().unwrap(), Some(Ending::Killed(15)));
        assert!(matches!(process.signal(Signal::TERM), Err(ProcessError::Gone { .. })));
    }

    #[test]
    fn a_number_with_another_start_time_is_another_process() {
        let ours = Process::open(Pid::ours()).unwrap();
        assert!(Process::reopen(ours.identity()).is_ok());
        let earlier =
            ProcessIdentity { start_time: StartTime(ours.start_time().0 - 1), ..ours.identity() };
        assert!(matches!(Process::reopen(earlier), Err(ProcessError::Gone { .. })));
    }

    #[test]
    fn no_process_has_a_number_that_is_not_positive() {
        assert_eq!(Pid::new(0), None);
        assert_eq!(Pid::new(-1), None);
    }
}
