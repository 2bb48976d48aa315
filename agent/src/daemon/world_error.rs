//! Why the world could not be looked at or changed: what the layers below say, and what only the agent can say.

use std::{io, net::SocketAddr, path::PathBuf};

use agent_rollout::Refusal;

use super::StateFileError;
#[cfg(debug_assertions)]
use super::Step;
use crate::{
    datapath::DatapathError,
    host::{
        cgroup::CgroupError,
        process::{Pid, ProcessError},
        sock_diag::SockDiagError,
    },
};

/// Why the world could not be looked at or changed, or what happened in it not be taken note of. The rooms' own errors have it as
/// one of their causes.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum WorldError {
    /// The kernel side.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The kernel's lists of sockets.
    #[error(transparent)]
    Sockets(#[from] SockDiagError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A control group.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The state could not be written down.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The rollout does not do what was asked for.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// As the state could not be written down, nothing was done.
    #[error("nothing has changed: {0}")]
    Unsaved(#[source] Box<WorldError>),
    /// The end of a process could not be waited for.
    #[error("wait for process {pid}")]
    WaitForProcess {
        /// Its number.
        pid: Pid,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The same of one that is being launched.
    #[error("wait for the launched process")]
    WaitForLaunch(#[source] io::Error),
    /// The end of a control group's last process could not be waited for.
    #[error("wait for a cgroup")]
    WaitForGroup(#[source] io::Error),
    /// A server that was found has ended before it was looked at.
    #[error("the server has no process")]
    NoProcess,
    /// The server of a port that is held for it.
    #[error("its listener is not there any more")]
    NoListener,
    /// A probe has no port of its own.
    #[error("take a port to probe from")]
    ProbePort(#[source] io::Error),
    /// Sockets other than TCP listeners, at which somebody may wait for clients.
    #[error("list the sockets that wait for whoever comes")]
    Doors(#[source] io::Error),
    /// A listener that was given connections was not woken.
    #[error("wake the listener on {address}")]
    Wake {
        /// What it is bound to.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A server closes its listeners without pause.
    #[error("connections move from listener to listener as fast as they are listed")]
    MovedTooFast,
    /// The output of generations stays.
    #[error("remove logs")]
    Logs(#[source] io::Error),
    /// A file of the agent's stays.
    #[error("remove `{}`", path.display())]
    Remove {
        /// Which, or which directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A test wants it.
    #[cfg(debug_assertions)]
    #[error("{0}: a test has it fail")]
    Fault(Step),
}
