//! How the layers' errors become what the operator reads.

use std::{io, path::Path};

use agent_api::{Problem, ProblemKind};
use rustix::io::Errno;

use super::{
    StateFileError, identify::error::IdentifyError, launch::error::NotLaunched,
    requests::error::RequestError, start::without_group, world_error::WorldError,
};
use crate::{
    datapath::DatapathError,
    host::{
        launch::NotStarted,
        mounts,
        null_device::NoNullDevice,
        objects::NoObject,
        open_files::TooFew,
        proc_mount::ProcMountError,
        process::ProcessError,
        seccomp::Filtered,
        sock_diag::{self, SockDiagError},
        socket_options::OptionMemory,
        sys_mount::{self, NoSysfs},
        tasks::TooFewTasks,
    },
};

/// Something of ours that could not be made, or written, at this place.
pub fn unwritten(message: String, place: &Path, error: &io::Error) -> Problem {
    let problem = Problem::new(ProblemKind::Failed, message).because(error);
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => problem.fix(writable_again(place)),
        _ => problem,
    }
}

fn writable_again(place: &Path) -> String {
    format!("make that file system writable: {}", mounts::remount(place))
}

impl From<WorldError> for Problem {
    fn from(error: WorldError) -> Self {
        match error {
            WorldError::Datapath(error) => error.into(),
            WorldError::Sockets(error) => error.into(),
            WorldError::Process(error) => error.into(),
            WorldError::State(error) => error.into(),
            WorldError::Refused(refusal) => refusal.into(),
            WorldError::Unsaved(error) => unchanged((*error).into()),
            WorldError::WaitForProcess { .. }
            | WorldError::WaitForLaunch(_)
            | WorldError::Remove { .. }
            | WorldError::WaitForGroup(_) => {
                Self::caused(ProblemKind::Failed, &error).on_one_line()
            }
            error => Self::caused(ProblemKind::Failed, &error),
        }
    }
}

impl From<IdentifyError> for Problem {
    fn from(error: IdentifyError) -> Self {
        match error {
            IdentifyError::World(error) => error.into(),
            error => told(error.kind(), &error, error.fix()),
        }
    }
}

impl From<NotLaunched> for Problem {
    fn from(error: NotLaunched) -> Self {
        match error {
            NotLaunched::World(error) => error.into(),
            NotLaunched::LogDirectory(error) => unchanged(error.into()),
            NotLaunched::Group(error) => without_group(&error),
            NotLaunched::LookUpUser { .. }
            | NotLaunched::LookUpGroup { .. }
            | NotLaunched::NoAnswer { .. } => told(error.kind(), &error, error.fix()).on_one_line(),
            error => told(error.kind(), &error, error.fix()),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::World(error) => error.into(),
            RequestError::HalfDone(error) => {
                let problem = Self::from(error);
                let again = || RequestError::DETACH_AGAIN.to_owned();
                Self { fix: Some(problem.fix.unwrap_or_else(again)), ..problem }
            }
            RequestError::Server(error) => error.into(),
            RequestError::Launch(error) => error.into(),
            RequestError::Group(error) => without_group(&error),
            RequestError::Answer(problem) => problem,
            RequestError::Unswitched { ref trouble, .. } => {
                let mut problem = told(error.kind(), &error, error.fix());
                problem.causes.extend(trouble.clone());
                problem
            }
            error => told(error.kind(), &error, error.fix()),
        }
    }
}

/// Why a request was refused before anything was done.
fn unchanged(problem: Problem) -> Problem {
    Problem { message: format!("nothing has changed: {}", problem.message), ..problem }
}

/// With its own fix, or that of what caused it.
fn told(
    kind: ProblemKind,
    error: &(dyn std::error::Error + 'static),
    fix: Option<String>,
) -> Problem {
    let problem = Problem::caused(kind, error);
    Problem { fix: fix.or(problem.fix), ..problem }
}

impl WorldError {
    /// On one line, with all causes.
    pub(in crate::daemon) fn in_full(self) -> String {
        Problem::from(self).in_full()
    }
}

impl From<DatapathError> for Problem {
    fn from(error: DatapathError) -> Self {
        let mut problem = Self::caused(kind_of(&error), &error);
        match &error {
            DatapathError::OtherSchema { path, .. } => problem.fix(format!(
                "detach with the agent that made the pins, or, if no service needs them, remove `{}`",
                path.display()
            )),
            DatapathError::Pin { path, source, .. }
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                problem.fix(writable_again(path))
            }
            DatapathError::KernelTypes(_) | DatapathError::KernelLayout(_) => {
                let without = || "run a kernel built with CONFIG_DEBUG_INFO_BTF=y".to_owned();
                let fix = sys_mount::what_hides_types().or(problem.fix.take()).unwrap_or_else(without);
                Self { fix: Some(fix), ..problem }
            }
            DatapathError::Socket { source, .. }
                if source.kind() == io::ErrorKind::OutOfMemory =>
            {
                problem.fix(OptionMemory::FIX)
            }
            DatapathError::Program { .. }
            | DatapathError::Object(_)
            | DatapathError::Deadlock => {
                let fix = "run `agent doctor`: it says what is missing here";
                Self { fix: problem.fix.or_else(|| Some(fix.to_owned())), ..problem }
            }
            DatapathError::SocketMapFull { .. } | DatapathError::MapFull { .. } => problem.fix(
                "wait until replaced generations are gone, or detach what this agent need not serve: the limit is for all its services together",
            ),
            DatapathError::ShareFull { .. } => problem.fix(
                "wait until replaced generations of it are gone, or have it open fewer listeners",
            ),
            DatapathError::WasConnection { .. } => {
                problem.fix("have the server listen with a socket that it has made for that")
            }
            DatapathError::NoBpfFileSystem(_)
            | DatapathError::Pin { .. }
            | DatapathError::Map { .. }
            | DatapathError::Group { .. }
            | DatapathError::Walk(_)
            | DatapathError::Socket { .. }
            | DatapathError::Flow { .. } => problem,
        }
    }
}

const fn kind_of(error: &DatapathError) -> ProblemKind {
    match error {
        DatapathError::OtherSchema { .. }
        | DatapathError::NoBpfFileSystem(_)
        | DatapathError::KernelTypes(_)
        | DatapathError::KernelLayout(_)
        | DatapathError::Object(_)
        | DatapathError::Program { .. }
        | DatapathError::WasConnection { .. }
        | DatapathError::Deadlock => ProblemKind::Preflight,
        DatapathError::Pin { .. }
        | DatapathError::Map { .. }
        | DatapathError::SocketMapFull { .. }
        | DatapathError::ShareFull { .. }
        | DatapathError::Group { .. }
        | DatapathError::MapFull { .. }
        | DatapathError::Walk(_)
        | DatapathError::Socket { .. }
        | DatapathError::Flow { .. } => ProblemKind::Failed,
    }
}

impl From<StateFileError> for Problem {
    fn from(error: StateFileError) -> Self {
        let problem = Self::caused(ProblemKind::Failed, &error);
        match &error {
            StateFileError::Io { .. } => problem,
            StateFileError::Damaged { path, .. }
            | StateFileError::TooLarge { path, .. }
            | StateFileError::Foreign { path, .. }
            | StateFileError::OtherVersion { path, .. } => Self {
                kind: ProblemKind::Preflight,
                ..problem
            }
            .fix(format!(
                "steering goes on without the agent; `agent doctor --repair` puts `{}` aside and writes it anew from what runs",
                path.display()
            )),
        }
    }
}

impl From<SockDiagError> for Problem {
    fn from(error: SockDiagError) -> Self {
        match &error {
            // What the kernel answers where nobody lists such sockets (`inet_diag_lock_handler`), or sockets at all.
            SockDiagError::Refused { source, .. }
                if [io::ErrorKind::NotFound, io::ErrorKind::Unsupported]
                    .contains(&source.kind()) =>
            {
                Self::caused(ProblemKind::Preflight, &error).on_one_line().fix(sock_diag::MODULES)
            }
            SockDiagError::Open(source) if !is_exhausted(source) => {
                Self::caused(ProblemKind::Preflight, &error).on_one_line().fix(sock_diag::FAMILY)
            }
            _ => Self::caused(ProblemKind::Failed, &error),
        }
    }
}

/// Whether the agent or the machine has run out of something, which may be there again.
pub(in crate::daemon) fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    exhausted.iter().any(|it| error.raw_os_error() == Some(it.raw_os_error()))
}

impl From<OptionMemory> for Problem {
    fn from(error: OptionMemory) -> Self {
        Self::caused(ProblemKind::Preflight, &error).fix(OptionMemory::FIX)
    }
}

impl From<ProcMountError> for Problem {
    fn from(error: ProcMountError) -> Self {
        Self::caused(ProblemKind::Preflight, &error).fix(error.fix())
    }
}

impl From<NoObject> for Problem {
    fn from(error: NoObject) -> Self {
        let fix = error.fix();
        let problem = Self::caused(ProblemKind::Preflight, &error).on_one_line();
        let fix = fix.or(problem.fix.clone()).unwrap_or_else(|| Filtered::FIX.to_owned());
        problem.fix(fix)
    }
}

impl From<NotStarted> for Problem {
    fn from(error: NotStarted) -> Self {
        let problem = Self::caused(ProblemKind::Preflight, &error).on_one_line();
        let fix = problem.fix.clone().unwrap_or_else(|| error.fix().to_owned());
        problem.fix(fix)
    }
}

impl From<TooFew> for Problem {
    fn from(error: TooFew) -> Self {
        Self::caused(ProblemKind::Preflight, &error).fix(TooFew::FIX)
    }
}

impl From<NoNullDevice> for Problem {
    fn from(error: NoNullDevice) -> Self {
        Self::caused(ProblemKind::Preflight, &error).fix(NoNullDevice::FIX)
    }
}

impl From<TooFewTasks> for Problem {
    fn from(error: TooFewTasks) -> Self {
        Self::caused(ProblemKind::Preflight, &error).fix(TooFewTasks::FIX)
    }
}

impl From<NoSysfs> for Problem {
    fn from(error: NoSysfs) -> Self {
        Self::caused(ProblemKind::Preflight, &error).fix(NoSysfs::FIX)
    }
}

impl From<Filtered> for Problem {
    fn from(error: Filtered) -> Self {
        Self::caused(ProblemKind::Preflight, &error).fix(error.fix())
    }
}

impl From<ProcessError> for Problem {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::SetId { .. } => Self::caused(ProblemKind::Preflight, &error)
                .fix("end that process, and have the server itself listen; or say with `--pid` which process the server is"),
            _ => Self::caused(ProblemKind::Failed, &error),
        }
    }
}
