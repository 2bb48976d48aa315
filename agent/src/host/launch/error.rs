//! Why a launch failed.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use super::report::Step;
use crate::host::process::ProcessError;

/// Why a server was not started.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// There is no such program, or no such interpreter as its first line names.
    #[error("program `{program}` or its interpreter not found")]
    ProgramNotFound {
        /// Its path.
        program: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The user may not execute the program.
    #[error("program `{program}` may not be executed by the server's user")]
    ProgramNotPermitted {
        /// Its path.
        program: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The user cannot get to the directory by its path, and the running server is not there.
    #[error(
        "the server's user `{uid}` may not enter the working directory `{directory}`, where no running process of the server is: say with \
         `--cwd` where the new generation is to run"
    )]
    DirectoryNotPermitted {
        /// Its path.
        directory: PathBuf,
        /// The user.
        uid: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The user has too many processes to run one more (`execve` and `setresuid` say EAGAIN then).
    #[error(
        "user `{uid}` has as many processes and threads as its limit (RLIMIT_NPROC) of {} allows: raise it with `--limit nproc=…`",
        limit.map_or("the agent".to_owned(), |limit| limit.to_string())
    )]
    TooManyProcesses {
        /// The user.
        uid: u32,
        /// The limit that the server was to have, if not the agent's own.
        limit: Option<u64>,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Who launches has not the right to give as much as the running server has.
    #[error("{on} for the new generation, which takes {right}")]
    Forbidden {
        /// Which step, on what.
        on: String,
        /// What that takes.
        right: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Who launches has the right, and is refused all the same.
    #[error(
        "{on} for the new generation, which a filter of system calls (seccomp) refuses the agent: let it pass, in a container by its \
         profile, in the agent's unit by `SystemCallFilter=`"
    )]
    Filtered {
        /// Which step, on what.
        on: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another step, or an odd failure of the last one.
    #[error("{on} for the new generation")]
    Failed {
        /// Which step.
        step: Step,
        /// The same in words, with what it was about.
        on: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The log could not be opened.
    #[error("open log `{path}`")]
    Log {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Something that the launch needs could not be made.
    #[error("make {what} for the launch")]
    Prepare {
        /// What.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// As many names as sockets are needed: a misuse.
    #[error("got `{got}` names of sockets to pass, expected `{expected}`")]
    SocketNames {
        /// Names.
        got: usize,
        /// Sockets.
        expected: usize,
    },
    /// The process whose namespaces are wanted.
    #[error("hold on to the process whose namespaces the new generation shares")]
    NamespaceSource(#[source] ProcessError),
    /// Its PID namespace could not be entered.
    #[error("enter the PID namespace of the running server")]
    PidNamespace {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The mapping of its users could not be read.
    #[error("read `{path}`")]
    UserMap {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The user does not exist in the server's user namespace.
    #[error("user `{uid}` has no counterpart in `{path}`")]
    UnmappedUser {
        /// The user, as we number it.
        uid: u32,
        /// The mapping.
        path: PathBuf,
    },
    /// Our own program could not be started.
    #[error("start `{executable}`")]
    Start {
        /// Its path.
        executable: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Who starts servers for us does not answer.
    #[error("ask the launcher to start it")]
    Launcher(#[source] io::Error),
    /// What the trampoline says could not be read.
    #[error("read the report of the launch")]
    Report(#[source] io::Error),
    /// The trampoline died without a word.
    #[error("the launch ended without a report")]
    Silent,
    /// The trampoline hangs, as a working directory on a dead file server makes it, or was stopped.
    #[error("the launch did not finish within `{patience:?}`")]
    TimedOut {
        /// How long it had.
        patience: Duration,
    },
    /// The new process could not be held.
    #[error("hold on to the launched process")]
    Process(#[source] ProcessError),
}
