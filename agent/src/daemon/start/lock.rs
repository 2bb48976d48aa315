//! The lock of the single writer, and how it goes from one agent to the next.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use agent_api::{Problem, ProblemKind};
use rustix::{
    fs::{FlockOperation, flock},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
    process::Signal,
};

use super::{directory::private_directory, own_files};
use crate::{
    daemon::unwritten,
    host::{
        bounded,
        process::{Pid, Process},
    },
    places::Places,
};

/// How long an agent that is told to end may take; it leaves everything as it is, so that this takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds out whether this build works here; refuses with what is missing.
pub(super) type Proof = fn(&Places) -> Result<(), Problem>;

/// An agent that ends lets go of its lock at the same moment, unless something of it stays behind.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The lock on the state, held for the life of the process: a killed agent leaves none behind.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// When an agent holds it.
    pub fn take(places: &Places) -> Result<Self, Problem> {
        try_lock(places)?.ok_or_else(|| held(places))
    }

    /// The number of the file that is locked, whatever its name is by now.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub(in crate::daemon) fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Takes the lock, from the agent that holds it if one does: proves that this build works here, then tells the other one
    /// to end, which leaves everything as it is, and kills it if it does not.
    ///
    /// # Errors
    ///
    /// When this build would fail, or nobody knows who holds the lock. The other one goes on then.
    pub(super) fn take_over(places: &Places, prove: Proof) -> Result<Self, Problem> {
        if let Some(lock) = try_lock(places)? {
            return Ok(lock);
        }
        prove(places)?;
        // With no holder, it has ended by itself or is about to write down who it is.
        let lock = match holder(places)? {
            Some(other) => end(&other, places)?,
            None => None,
        };
        // One without services has left no trace.
        private_directory(&places.runtime_dir)?;
        lock.map_or_else(|| Self::take(places), Ok)
    }
}

fn try_lock(places: &Places) -> Result<Option<Lock>, Problem> {
    let path = places.lock_file();
    let failed = |error: io::Error| unwritten(format!("lock `{}`", path.display()), &path, &error);
    loop {
        let file = own_files::open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        }
        // One that ended in between has removed the file that we locked: then it locks nobody out.
        let locked = file.metadata().map_err(failed)?.ino();
        if fs::metadata(&path).is_ok_and(|named| named.ino() == locked) {
            return Ok(Some(Lock { file }));
        }
    }
}

fn held(places: &Places) -> Problem {
    let pid = written(places).map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    let message =
        format!("an agent runs already on `{}` (pid {pid})", places.runtime_dir.display());
    Problem::new(ProblemKind::Locked, message)
        .fix("to put this one in its place: `agent daemon --replace`")
}

/// The agent that has the lock: it says so itself, over its socket (`SO_PEERCRED`, which the kernel fills in, and which a
/// hung agent answers too) or in its file, and it has the lock file open.
fn holder(places: &Places) -> Result<Option<Process>, Problem> {
    for pid in answering(&places.socket()).into_iter().chain(written(places)) {
        let Ok(process) = Process::open(pid) else { continue };
        if has_open(pid, &places.lock_file())? {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

/// What is in the pid file.
fn written(places: &Places) -> Option<Pid> {
    const MOST: u64 = 64;
    let text = bounded::read_regular(&places.pid_file(), MOST).ok()?;
    str::from_utf8(&text).ok()?.trim().parse().ok().and_then(Pid::new)
}

/// Whether an agent runs on these places: one that has just begun to start does not count yet.
pub(in crate::daemon) fn agent_answers(places: &Places) -> bool {
    answering(&places.socket()).is_some()
}

/// Who listens on the socket, as root. Nothing is said to it.
fn answering(socket: &Path) -> Option<Pid> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&client, &SocketAddrUnix::new(socket).ok()?).ok()?;
    let peer = sockopt::socket_peercred(&client).ok()?;
    peer.uid.is_root().then(|| Pid::new(peer.pid.as_raw_nonzero().get()))?
}

fn has_open(pid: Pid, path: &Path) -> Result<bool, Problem> {
    let failed = |error: io::Error| {
        let message = format!("see whether process {pid} has `{}` open: {error}", path.display());
        Problem::new(ProblemKind::Failed, message)
    };
    let wanted = fs::metadata(path).map_err(failed)?;
    let descriptors = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        descriptors => descriptors.map_err(failed)?,
    };
    // One that is closed meanwhile is not the lock.
    let mut open = descriptors.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
    Ok(open.any(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino())))
}

/// Ends the other agent. It has ended with its process, or when it has let go of the lock: a thread that some server keeps
/// waiting stays behind, and the process with it (`host/patience`).
fn end(other: &Process, places: &Places) -> Result<Option<Lock>, Problem> {
    tracing::info!(pid = other.pid().get(), "replacing the agent that runs");
    for signal in [Signal::TERM, Signal::KILL] {
        if let Err(error) = other.signal(signal)
            && other.is_alive()?
        {
            return Err(error.into());
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if other.has_exited_within(BETWEEN_LOOKS)? {
                return Ok(None);
            }
            if let Some(lock) = try_lock(places)? {
                return Ok(Some(lock));
            }
        }
        tracing::warn!(pid = other.pid().get(), ?signal, "the agent that runs does not end");
    }
    let message =
        format!("the agent that runs (pid {}) does not end, not even killed", other.pid());
    Err(Problem::new(ProblemKind::Failed, message))
}
