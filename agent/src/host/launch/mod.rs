//! Starts a new generation with what the old one was given.
//!
//! ```text
//! agent ── spawn ──> agent launch N ── execve ──> server
//!   │                  (trampoline)                 │
//!   │ <── + … failed step, or the end of the pipe ──┘
//! ```
//!
//! The trampoline is our own program once more, which becomes the server when all is in place: its
//! process number is the server's from the start, and a step that fails is told in words before
//! anything of the server has run.

mod confine;
mod error;
mod fitting;
mod handover;
mod program;
mod report;
mod spawn;
mod trampoline;
mod user_namespace;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    fs::{MemfdFlags, OFlags, memfd_create},
    pipe::{PipeFlags, pipe_with},
    process::Signal,
};
use serde::{Deserialize, Serialize};

use self::{
    report::{BEGUN, Failure},
    spawn::{Descriptors, spawn, spawn_in_pid_namespace},
};
use super::{
    context::{Context, Namespace},
    limit::Resource,
    os_text::OsText,
    process::{Ending, Process, ProcessError, ProcessIdentity, readable_within},
};

pub use error::LaunchError;
pub use fitting::{Unfit, Usage, fitting, tasks_of_user, with_tasks};
pub use handover::mechanism_of;
pub use program::{ResolveError, resolve_program};
pub use report::Step;
pub use trampoline::trampoline;

/// The argument that makes a program call [`trampoline()`]; the number of a descriptor follows.
pub const TRAMPOLINE_ARGUMENT: &str = "launch";

/// What to start, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The absolute path, in the server's mount namespace; see [`resolve_program`].
    pub program: OsText,
    /// What the program sees as its name, if not its path.
    pub argument_zero: Option<OsText>,
    /// The arguments after the name.
    pub arguments: Vec<OsText>,
    /// User, directory, environment, limits.
    pub context: Context,
    /// The process to take the context's namespaces from; ours stay if there is none.
    pub namespaces_of: Option<ProcessIdentity>,
    /// The directory of the control group to run in.
    pub cgroup: OsText,
    /// The file that standard output and error are appended to.
    pub log: OsText,
    /// The names of the sockets to pass (`LISTEN_FDNAMES`), in their order.
    pub socket_names: Vec<String>,
}

/// A server that has begun to run.
#[derive(Debug)]
pub struct Launched {
    /// Its first process, a child of ours: whoever sees it exit calls [`Process::reap`].
    pub process: Process,
}

/// Starts a server; returns when its program has been executed.
///
/// `sockets` become descriptors 3, 4, … as in `sd_listen_fds(3)`, one for each of the names.
///
/// # Errors
///
/// Names the step that failed. Nothing is left running then, and the control group stays as it was.
pub fn launch(spec: &LaunchSpec, sockets: &[BorrowedFd<'_>]) -> Result<Launched, LaunchError> {
    // The program that runs now, even if a newer one has been installed over it.
    launch_with(Path::new("/proc/self/exe"), spec, sockets)
}

/// As [`launch()`], by another program that calls [`trampoline()`].
///
/// # Errors
///
/// As [`launch()`].
pub fn launch_with(
    executable: &Path,
    spec: &LaunchSpec,
    sockets: &[BorrowedFd<'_>],
) -> Result<Launched, LaunchError> {
    if sockets.len() != spec.socket_names.len() {
        return Err(LaunchError::SocketNames {
            got: spec.socket_names.len(),
            expected: sockets.len(),
        });
    }
    let source = spec
        .namespaces_of
        .map(Process::reopen)
        .transpose()
        .map_err(LaunchError::NamespaceSource)?;
    let spec_file = written(spec, source.as_ref())?;
    let log_path = PathBuf::from(spec.log.as_os_str());
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(LOG_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&log_path)
        .and_then(|log| give(&log, &spec.context).map(|()| log))
        .map_err(|source| LaunchError::Log { path: log_path, source })?;
    let (report, report_writer) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| LaunchError::Prepare { what: "a pipe", source: error.into() })?;
    let descriptors = Descriptors {
        input: source.as_ref().map_or(spec_file.as_fd(), AsFd::as_fd),
        report: report_writer.as_fd(),
        log: log.as_fd(),
        sockets,
        spec: spec_file.as_fd(),
    };
    let pid = match &source {
        Some(source) if spec.context.namespaces.contains(&Namespace::Pid) => {
            spawn_in_pid_namespace(source, executable, &descriptors)?
        }
        Some(_) | None => spawn(executable, &descriptors)?,
    };
    drop(report_writer);
    let process = Process::of_child(pid).map_err(LaunchError::Process)?;
    await_execution(process, &File::from(report), &spec.context)
}

/// A server opens its own output by name (`/dev/stdout`), if it is its user's.
fn give(log: &File, context: &Context) -> io::Result<()> {
    let known = log.metadata()?;
    if (known.uid(), known.gid()) == (context.uid, context.gid) {
        return Ok(());
    }
    std::os::unix::fs::fchown(log, Some(context.uid), Some(context.gid))
}

/// The specification in memory, as the trampoline reads it: with the user numbered as in the
/// server's user namespace.
fn written(spec: &LaunchSpec, source: Option<&Process>) -> Result<File, LaunchError> {
    let mut spec = spec.clone();
    if let Some(source) = source.filter(|_| spec.context.namespaces.contains(&Namespace::User)) {
        spec.context.uid = user_namespace::user_inside(spec.context.uid, source.pid())?;
    }
    let failed = |source| LaunchError::Prepare { what: "the specification", source };
    let json = serde_json::to_vec(&spec).map_err(|error| failed(error.into()))?;
    let memory =
        memfd_create("launch", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut file = File::from(memory);
    file.write_all(&json).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}

/// Listens until the trampoline has become the server or said why not.
fn await_execution(
    process: Process,
    report: &File,
    context: &Context,
) -> Result<Launched, LaunchError> {
    let told = match read_report(report) {
        Ok(Some(told)) => told,
        Ok(None) => {
            end(&process)?;
            return Err(LaunchError::TimedOut { patience: PATIENCE });
        }
        Err(source) => {
            end(&process)?;
            return Err(LaunchError::Report(source));
        }
    };
    match told.split_first() {
        Some((&BEGUN, [])) => Ok(Launched { process }),
        Some((&BEGUN, failure)) => Err(failed_step(end(&process)?, failure, context)),
        // It failed before it could say that it runs, or it is no trampoline at all.
        Some((_, _)) => Err(failed_step(end(&process)?, &told, context)),
        None => Err(LaunchError::Silent { ending: end(&process)? }),
    }
}

/// All that the trampoline says; nothing if it takes too long, as a working directory on a dead
/// file server makes it.
fn read_report(mut report: &File) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut told = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if !readable_within(report, PollFlags::IN, left)? {
            return Ok(None);
        }
        match report.read(&mut chunk)? {
            0 => return Ok(Some(told)),
            length => told.extend_from_slice(&chunk[..length]),
        }
    }
}

/// Ends a trampoline that has failed, and takes the zombie away.
fn end(process: &Process) -> Result<Option<Ending>, LaunchError> {
    // One that writes its report is about to exit by itself, and its code says more than our
    // signal.
    let exited = process.has_exited_within(GRACE).map_err(LaunchError::Process)?;
    if !exited {
        match process.signal(Signal::KILL) {
            Ok(()) | Err(ProcessError::Gone { .. }) => {}
            Err(error) => return Err(LaunchError::Process(error)),
        }
        process.has_exited_within(PATIENCE).map_err(LaunchError::Process)?;
    }
    process.reap().map_err(LaunchError::Process)
}

fn failed_step(ending: Option<Ending>, report: &[u8], context: &Context) -> LaunchError {
    let Ok(failure) = serde_json::from_slice::<Failure>(report) else {
        return LaunchError::Silent { ending };
    };
    let (step, subject) = (failure.step, failure.subject.clone());
    let source = failure.into_error();
    match (step, source.kind()) {
        (Step::Execute, io::ErrorKind::NotFound) => {
            LaunchError::ProgramNotFound { program: subject.into(), source }
        }
        (Step::Execute, io::ErrorKind::PermissionDenied) => {
            LaunchError::ProgramNotPermitted { program: subject.into(), source }
        }
        (Step::Execute | Step::ChangeUser, io::ErrorKind::WouldBlock) => {
            let Context { uid, limits, .. } = context;
            let limit = limits.iter().find(|limit| limit.resource == Resource::Nproc);
            LaunchError::TooManyProcesses { uid: *uid, limit: limit.and_then(|it| it.soft), source }
        }
        _ => LaunchError::Failed { step, subject, source },
    }
}

/// Readable for the agent's user only: servers log what they like.
const LOG_MODE: u32 = 0o600;

/// How long a trampoline may take; each of its steps takes microseconds on a sound machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a trampoline that has failed may take to exit.
const GRACE: Duration = Duration::from_secs(1);
