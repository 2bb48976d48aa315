//! The agent's end.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
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
    /// When our own program cannot be executed once more.
    pub fn start() -> io::Result<Self> {
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
    pub fn connect(path: &Path) -> io::Result<Self> {
        let ours =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&ours, &SocketAddrUnix::new(path)?)?;
        set_socket_timeout(&ours, Timeout::Recv, Some(INTRODUCTION))?;
        let pid = match exchange(&ours, &Request::Introduce, &[])? {
            Answer::Introduced(pid) => pid,
            other => return Err(unexpected(&other)),
        };
        set_socket_timeout(&ours, Timeout::Recv, None)?;
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

    fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        exchange(&*socket, request, descriptors)
    }
}

fn exchange(
    socket: impl AsFd,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Answer> {
    send(&socket, request, descriptors)?;
    let answer = receive(&socket)?;
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
