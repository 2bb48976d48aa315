//! Why there is no answer.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::NoEvent;
use crate::{Problem, ProblemKind};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody has the socket.
    #[error("no agent is running: nothing answers at `{}`", socket.display())]
    NotRunning {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody has had it for as long as an agent may be away.
    #[error("the agent has not come back: nothing answers at `{}`", socket.display())]
    Away {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is for others.
    #[error("the control socket `{}` is for root", socket.display())]
    Forbidden {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is there and yet cannot be used.
    #[error("cannot connect to the control socket `{}`", socket.display())]
    Unconnected {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whoever can change the socket's directory could have put anything there.
    #[error("{0}")]
    Untrusted(Problem),
    /// Somebody who is neither root nor ourselves has the socket.
    #[error("what answers at `{}` is no agent of root's: it runs as uid {uid}", socket.display())]
    Stranger {
        /// Where.
        socket: PathBuf,
        /// Who.
        uid: u32,
    },
    /// The agent took the request and said nothing.
    #[error("the agent does not answer")]
    Silent,
    /// The agent went away.
    #[error("the connection to the agent broke")]
    Broken(#[from] hyper::Error),
    /// The answer ended too early, or never.
    #[error("the agent's answer was cut off")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request has no place in a request line.
    #[error("cannot write the request line")]
    Unaddressable(#[source] hyper::http::Error),
    /// The request is no JSON.
    #[error("cannot write the request")]
    Unwritable(#[source] serde_json::Error),
    /// The answer is not the JSON that it should be.
    #[error("cannot read the agent's answer")]
    Unreadable(#[source] serde_json::Error),
    /// The answer is no event stream.
    #[error("cannot read the agent's events")]
    NoEvent(#[from] NoEvent),
    /// The answer is not in the agent's words.
    #[error("what has the control socket answers {status} and no more")]
    Foreign {
        /// The HTTP status.
        status: u16,
    },
    /// The agent says no.
    #[error("{0}")]
    Refused(Problem),
}

impl ClientError {
    pub(super) fn unconnected(socket: &Path, source: io::Error) -> Self {
        let socket = socket.to_owned();
        match source.kind() {
            // The last one: an agent that ended while the connection waited to be accepted (`unix_release_sock`).
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset => Self::NotRunning { socket, source },
            io::ErrorKind::PermissionDenied if !rustix::process::geteuid().is_root() => {
                Self::Forbidden { socket, source }
            }
            _ => Self::Unconnected { socket, source },
        }
    }

    /// Whether the agent has said that it is about to go away.
    pub fn is_ending(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.kind == ProblemKind::Ending)
    }

    /// Whether the agent was there and went away before it answered.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Cut(_)) || self.is_ending()
    }

    /// What it is when an agent that was there has been waited for in vain.
    pub fn after_all(self) -> Self {
        match self {
            Self::NotRunning { socket, source } => Self::Away { socket, source },
            other => other,
        }
    }

    /// Whether an agent that is being restarted looks like this.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::Silent | Self::Broken(_) | Self::Cut(_) => true,
            Self::Away { .. }
            | Self::Forbidden { .. }
            | Self::Unconnected { .. }
            | Self::Untrusted(_)
            | Self::Stranger { .. }
            | Self::Unaddressable(_)
            | Self::Unwritable(_)
            | Self::Unreadable(_)
            | Self::NoEvent(_)
            | Self::Foreign { .. } => false,
            Self::Refused(_) => self.is_ending(),
        }
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        const VERSIONS: &str = "use the same version of the command and of the agent";
        let (kind, fix) = match &error {
            ClientError::NotRunning { .. } => (
                ProblemKind::NotFound,
                Some("start it with `agent daemon --background`, or attach a port"),
            ),
            ClientError::Away { .. } => (
                ProblemKind::NotFound,
                Some(
                    "steering goes on without it, and what was asked for when it is back: `agent daemon --background`, then `agent status`",
                ),
            ),
            ClientError::Forbidden { .. } => {
                (ProblemKind::Preflight, Some("run it as root, for example with sudo"))
            }
            ClientError::Stranger { .. } => {
                (ProblemKind::Preflight, Some("name the directory of the agent (`--runtime-dir`)"))
            }
            ClientError::Silent => (
                ProblemKind::Failed,
                Some(
                    "what was asked for may still be done: see `agent status` and the agent's log",
                ),
            ),
            ClientError::Unreadable(_) | ClientError::NoEvent(_) | ClientError::Foreign { .. } => {
                (ProblemKind::Failed, Some(VERSIONS))
            }
            ClientError::Unconnected { .. }
            | ClientError::Broken(_)
            | ClientError::Cut(_)
            | ClientError::Unaddressable(_)
            | ClientError::Unwritable(_) => (ProblemKind::Failed, None),
            ClientError::Untrusted(problem) | ClientError::Refused(problem) => {
                return problem.clone();
            }
        };
        Self { fix: fix.map(str::to_owned), ..Self::caused(kind, &error) }
    }
}
