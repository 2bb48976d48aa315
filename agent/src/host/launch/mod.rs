//! Starts a new generation with what the old one was given.
//!
//! ```text
//! agent ──> launcher ── spawn ──> agent launch N ── execve ──> server
//!   │                             (trampoline)                 │
//!   │ <────── + … failed step, or the end of the pipe ─────────┘
//! ```
//!
//! The trampoline is our own program once more, which becomes the server when all is in place: its
//! process number is the server's from the start, and a step that fails is told in words before
//! anything of the server has run.

mod confine;
mod enter;
mod error;
mod fitting;
mod handover;
mod launcher;
mod program;
mod report;
mod spawn;
mod trampoline;
mod user_namespace;

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt, PermissionsExt as _},
    },
    path::Path,
};

use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use serde::{Deserialize, Serialize};

use self::spawn::Descriptors;
use super::{
    context::{Context, Namespace},
    os_text::OsText,
    process::{Process, ProcessIdentity},
};

pub use error::LaunchError;
pub use fitting::{Unfit, Usage, fitting, tasks_of_user, with_tasks};
pub use handover::mechanism_of;
pub use launcher::{LAUNCHER_ARGUMENT, Launcher, NotStarted, launcher};
pub use program::{ResolveError, places_of_program, resolve_program};
pub use report::{Report, Step};
pub use spawn::{Here, Spawn};
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
    /// Who decided on that directory.
    #[serde(default)]
    pub directory: Directory,
    /// The process to take the context's namespaces from; ours stay if there is none.
    pub namespaces_of: Option<ProcessIdentity>,
    /// The directory of the control group to run in.
    pub cgroup: OsText,
    /// The file that standard output and error are appended to; without one they go nowhere.
    pub log: Option<OsText>,
    /// The names of the sockets to pass (`LISTEN_FDNAMES`), in their order.
    pub socket_names: Vec<String>,
}

/// Who decided where a server is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Directory {
    /// The operator: it is entered whether the server's user can reach it or not.
    Named,
    /// The server, which can put anything in the place of that path: it is entered if its user can reach it, or if it is the one that the
    /// running process is in.
    Shown {
        /// The device and the inode of that one.
        held: Option<(u64, u64)>,
    },
}

impl Default for Directory {
    fn default() -> Self {
        Self::Shown { held: None }
    }
}

/// A launch under way.
#[derive(Debug)]
pub struct Launch {
    /// What is to become the server: whoever sees it exit has who spawned it take the zombie away.
    pub process: Process,
    /// How far it is.
    pub report: Report,
    /// Why its output goes nowhere, if it does.
    pub unlogged: Option<io::Error>,
}

/// Begins to launch a server, and waits for nobody: what the server's user can stop is seen by its [`Report`].
///
/// `sockets` become descriptors 3, 4, … as in `sd_listen_fds(3)`, one for each of the names.
///
/// # Errors
///
/// When the trampoline cannot be started. Nothing is left running then, and the control group stays as it was.
pub fn launch(
    by: &impl Spawn,
    spec: &LaunchSpec,
    sockets: &[BorrowedFd<'_>],
) -> Result<Launch, LaunchError> {
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
    let (log, unlogged) = open_log(spec.log.as_ref())?;
    let (report, report_writer) = Report::new(&spec.context)
        .map_err(|source| LaunchError::Prepare { what: "a pipe", source })?;
    let descriptors = Descriptors {
        input: source.as_ref().map_or(spec_file.as_fd(), AsFd::as_fd),
        report: report_writer.as_fd(),
        log: log.as_fd(),
        sockets,
        spec: spec_file.as_fd(),
    };
    let in_pid_namespace = source.is_some() && spec.context.namespaces.contains(&Namespace::Pid);
    let pid = by.spawn(&descriptors, in_pid_namespace)?;
    let process = Process::of_child(pid).map_err(LaunchError::Process)?;
    Ok(Launch { process, report, unlogged })
}

/// The file for a server's output. Where there is no room for one, which may be somebody else's doing, the server starts all the same.
fn open_log(path: Option<&OsText>) -> Result<(File, Option<io::Error>), LaunchError> {
    let opened = path.map(|path| (path, open_ours(Path::new(path.as_os_str()))));
    let why = match opened {
        Some((_, Ok(log))) => return Ok((log, None)),
        Some((_, Err(error))) if lacks_room(&error) => Some(error),
        Some((path, Err(source))) => {
            return Err(LaunchError::Log { path: path.as_os_str().into(), source });
        }
        None => None,
    };
    let nowhere = OpenOptions::new().append(true).open("/dev/null");
    let nowhere =
        nowhere.map_err(|source| LaunchError::Log { path: "/dev/null".into(), source })?;
    Ok((nowhere, why))
}

fn open_ours(path: &Path) -> io::Result<File> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(LOG_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    keep_ours(&log).map(|()| log)
}

fn lacks_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A server may open its own output by name (`/dev/stdout`), which only who has it open already can. The file stays ours: an owner
/// could take a lease on it (`generic_setlease`), and keep us from cutting it.
fn keep_ours(log: &File) -> io::Result<()> {
    let ours = rustix::process::geteuid().as_raw();
    if log.metadata()?.uid() != ours {
        std::os::unix::fs::fchown(log, Some(ours), None)?;
    }
    // Whatever our umask is.
    log.set_permissions(Permissions::from_mode(LOG_MODE))
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

/// Who gets to it by its path is decided by its directory, which is the agent's alone: servers log what they like.
const LOG_MODE: u32 = 0o666;
