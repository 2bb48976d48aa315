//! The parent's half of a launch: starts the trampoline with the descriptors where it looks for
//! them.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::signal::SigSet,
};
use rustix::{
    io::fcntl_dupfd_cloexec,
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};

use super::{LaunchError, TRAMPOLINE_ARGUMENT, trampoline::FIRST_PASSED};
use crate::host::process::Pid;

/// Who starts trampolines.
pub trait Spawn {
    /// Starts one; the number is that of a child whose zombie only the same may take away.
    ///
    /// # Errors
    ///
    /// When it cannot be started. Nothing of it runs then.
    fn spawn(
        &self,
        descriptors: &Descriptors<'_>,
        in_pid_namespace: bool,
    ) -> Result<Pid, LaunchError>;
}

/// This process, by a program that calls [`trampoline()`](super::trampoline()).
#[derive(Debug)]
pub struct Here<'a>(pub &'a Path);

impl Spawn for Here<'_> {
    fn spawn(
        &self,
        descriptors: &Descriptors<'_>,
        in_pid_namespace: bool,
    ) -> Result<Pid, LaunchError> {
        match in_pid_namespace {
            true => spawn_in_pid_namespace(self.0, descriptors),
            false => spawn(self.0, descriptors),
        }
    }
}

/// What the trampoline finds at which number: 0 input, 1 report, 2 log, then the sockets, then the
/// specification.
#[derive(Debug)]
pub struct Descriptors<'a> {
    pub(super) input: BorrowedFd<'a>,
    pub(super) report: BorrowedFd<'a>,
    pub(super) log: BorrowedFd<'a>,
    pub(super) sockets: &'a [BorrowedFd<'a>],
    pub(super) spec: BorrowedFd<'a>,
}

/// A process never changes its own PID namespace, only that of its children to come, and each
/// thread for itself: so a thread of its own enters it and is the one that spawns. The child is
/// still the child of this process.
fn spawn_in_pid_namespace(
    executable: &Path,
    descriptors: &Descriptors<'_>,
) -> Result<Pid, LaunchError> {
    let enter_and_spawn = || {
        move_into_thread_name_spaces(descriptors.input, ThreadNameSpaceType::PROCESS_ID)
            .map_err(|error| LaunchError::PidNamespace { source: error.into() })?;
        spawn(executable, descriptors)
    };
    std::thread::scope(|scope| {
        let spawner = std::thread::Builder::new()
            .name("launch".to_owned())
            .spawn_scoped(scope, enter_and_spawn)
            .map_err(|source| LaunchError::Prepare { what: "a thread", source })?;
        spawner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Starts the trampoline with all signals at their defaults: what the agent ignores or blocks,
/// because whoever started it does (`nohup`), is none of the server's business. Only a spawn can do
/// that to all signals in safe code.
fn spawn(executable: &Path, descriptors: &Descriptors<'_>) -> Result<Pid, LaunchError> {
    let failed = |source| LaunchError::Start { executable: executable.to_owned(), source };
    let Descriptors { input, report, log, sockets, spec } = descriptors;
    let sources = [&[*input, *report, *log], *sockets, &[*spec]].concat();
    let places = RawFd::try_from(sources.len()).map_err(|error| failed(io::Error::other(error)))?;
    // Copied out of the way first, so that filling one place never destroys what is meant for the
    // next.
    let copies: Vec<OwnedFd> = sources
        .iter()
        .map(|source| fcntl_dupfd_cloexec(source, places))
        .collect::<Result<_, _>>()
        .map_err(|error| failed(error.into()))?;
    let spec_place = FIRST_PASSED
        + RawFd::try_from(sockets.len()).map_err(|error| failed(io::Error::other(error)))?;
    let arguments = [
        c"agent".to_owned(),
        c_string(TRAMPOLINE_ARGUMENT.as_bytes()),
        c_string(spec_place.to_string().as_bytes()),
    ];
    let path = c_string(executable.as_os_str().as_bytes());

    let attempt = || {
        let mut actions = PosixSpawnFileActions::init()?;
        for (place, copy) in (0..).zip(&copies) {
            actions.add_dup2(copy.as_raw_fd(), place)?;
        }
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        attributes.set_sigdefault(&SigSet::all())?;
        attributes.set_sigmask(&SigSet::empty())?;
        let no_environment: [&CStr; 0] = [];
        posix_spawn(path.as_c_str(), &actions, &attributes, &arguments, &no_environment)
    };
    let pid = attempt().map_err(|error: nix::Error| failed(error.into()))?;
    Pid::new(pid.as_raw())
        .ok_or_else(|| failed(io::Error::other("the kernel gave no process number")))
}

/// Up to the first zero byte, which no path or argument can have behind it.
fn c_string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).expect("cut at the first zero byte")
}
