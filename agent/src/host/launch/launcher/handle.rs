//! The agent's end.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with, socketpair,
    sockopt::{Timeout, set_socket_timeout},
};

use super::{Answer, LAUNCHER_ARGUMENT, Request, receive, send};
use crate::host::{
    ended::Ended,
    launch::{
        LaunchError,
        spawn::{Descriptors, Spawn},
    },
    process::{Ending, Pid, Process},
};

/// A launcher that is ours alone. It ends when it is told to, and with us.
#[derive(Debug)]
pub struct Launcher {
    pid: Pid,
    /// Held while an answer is waited for: it is given at once.
    socket: Mutex<OwnedFd>,
    /// For whoever waits for its end.
    also: OwnedFd,
    /// Where we have started it ourselves.
    child: Option<Mutex<Child>>,
}

/// How long a service manager may take to start one.
const INTRODUCTION: Duration = Duration::from_secs(30);

impl Launcher {
    /// Starts it, with all rights that we have now.
    ///
    /// # Errors
    ///
    /// When our own program cannot be executed once more, or ends before it answers.
    pub fn start() -> Result<Self, NotStarted> {
        let started = Self::spawned()?;
        let answered = {
            let socket = started.socket.lock().unwrap_or_else(PoisonError::into_inner);
            introduced(&*socket)
        };
        match answered {
            Ok(_pid) => Ok(started),
            // It has said why, or is gone.
            Err(NotStarted::Unreachable(error)) if is_end(&error) => Err(started.ended(error)),
            Err(other) => Err(other),
        }
    }

    fn spawned() -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new("/proc/self/exe")
            .arg0("agent")
            .arg(LAUNCHER_ARGUMENT)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // Signals of a terminal are for the agent, which ends it.
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::new);
        let pid = pid.ok_or_else(|| io::Error::other("the kernel gave no process number"))?;
        let also = ours.try_clone()?;
        Ok(Self { pid, socket: Mutex::new(ours), also, child: Some(Mutex::new(child)) })
    }

    /// Connects to a socket for which a service manager starts one (`Accept=yes`), with all rights that it gives it.
    ///
    /// # Errors
    ///
    /// When nobody listens, or who answers is no launcher.
    pub fn connect(path: &Path) -> Result<Self, NotStarted> {
        let ours =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&ours, &SocketAddrUnix::new(path)?)?;
        let pid = introduced(&ours)?;
        let also = ours.try_clone()?;
        Ok(Self { pid, socket: Mutex::new(ours), also, child: None })
    }

    /// Its number: servers are forked by it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How a server ended that this launcher has started; takes the zombie away. Can say so only once.
    ///
    /// # Errors
    ///
    /// When the launcher is gone.
    pub fn reap(&self, process: &Process) -> io::Result<Option<Ending>> {
        match self.ask(&Request::Reap(process.pid()), &[])? {
            Answer::Reaped(ending) => Ok(ending),
            other => Err(unexpected(&other)),
        }
    }

    /// Has it end, and waits for that where it is a child of ours: who has asked the agent to end finds nothing of it left.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn end(&self) -> io::Result<()> {
        match shutdown(&self.also, Shutdown::Both) {
            // It has ended before.
            Err(rustix::io::Errno::NOTCONN) => {}
            closed => closed?,
        }
        let Some(child) = &self.child else { return Ok(()) };
        child.lock().unwrap_or_else(PoisonError::into_inner).wait().map(drop)
    }

    /// What ended it, or else what was seen of its end.
    fn ended(self, seen: io::Error) -> NotStarted {
        let Some(child) = self.child else { return seen.into() };
        let child = child.into_inner().unwrap_or_else(PoisonError::into_inner).wait();
        match child {
            Ok(status) => match status.signal() {
                Some(signal) => NotStarted::Ended(Ended::by(signal)),
                None => io::Error::other(format!("it ended before it answered ({status})")).into(),
            },
            Err(_) => seen.into(),
        }
    }

    fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        exchange(&*socket, request, descriptors)
    }
}

/// Why there is no launcher.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// It cannot be executed, or be spoken with.
    #[error("start the launcher")]
    Unreachable(#[from] io::Error),
    /// It has ended by itself, and has said why.
    #[error("the launcher, as it started, could not {what}")]
    Unready {
        /// What it could not do.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It was ended.
    #[error("the launcher, as it started, {0}")]
    Ended(Ended),
}

impl NotStarted {
    /// What to do about it, where the cause does not say so.
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Unready { .. } => {
                "let it pass, whatever refuses it: a filter of system calls (seccomp), a security module, or a limit (`ulimit -a`)"
            }
            Self::Ended(ended) => ended.fix(),
        }
    }
}

impl From<rustix::io::Errno> for NotStarted {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Unreachable(error.into())
    }
}

/// Who answers, when it can do its work.
fn introduced(socket: impl AsFd) -> Result<Pid, NotStarted> {
    set_socket_timeout(&socket, Timeout::Recv, Some(INTRODUCTION))?;
    match send(&socket, &Request::Introduce, &[]) {
        // It may have spoken before it ended.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        sent => sent?,
    }
    let answered = match answer(&socket) {
        // One that has spoken and ended, and had not read what we sent: that is told before what it said (`unix_release_sock`).
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => answer(&socket),
        answered => answered,
    };
    let pid = match answered? {
        Answer::Introduced(pid) => pid,
        Answer::Unready { what, number } => {
            return Err(NotStarted::Unready { what, source: io::Error::from_raw_os_error(number) });
        }
        other => return Err(unexpected(&other).into()),
    };
    set_socket_timeout(&socket, Timeout::Recv, None)?;
    Ok(pid)
}

fn is_end(error: &io::Error) -> bool {
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind())
}

fn exchange(
    socket: impl AsFd,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Answer> {
    send(&socket, request, descriptors)?;
    answer(socket)
}

fn answer(socket: impl AsFd) -> io::Result<Answer> {
    let answer = receive(socket)?;
    answer.map(|(answer, _none)| answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Spawn for Launcher {
    fn spawn(
        &self,
        descriptors: &Descriptors<'_>,
        in_pid_namespace: bool,
    ) -> Result<Pid, LaunchError> {
        let Descriptors { input, report, log, sockets, spec } = descriptors;
        let passed = [&[*input, *report, *log, *spec], *sockets].concat();
        match self.ask(&Request::Spawn { in_pid_namespace }, &passed) {
            Ok(Answer::Spawned(pid)) => Ok(pid),
            Ok(Answer::NotEntered(failure)) => {
                Err(LaunchError::PidNamespace { source: failure.into_error() })
            }
            Ok(Answer::NotSpawned(failure)) => Err(LaunchError::Start {
                executable: "/proc/self/exe".into(),
                source: failure.into_error(),
            }),
            Ok(other) => Err(LaunchError::Launcher(unexpected(&other))),
            Err(error) => Err(LaunchError::Launcher(error)),
        }
    }
}

/// Readable when the launcher is gone: it says nothing by itself.
impl AsFd for Launcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.also.as_fd()
    }
}

fn unexpected(answer: &Answer) -> io::Error {
    io::Error::other(format!("the launcher answered {answer:?}"))
}
