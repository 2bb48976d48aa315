//! The ways in which a request can fail, as the client sees them.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use nix::errno::Errno;
use serde::Serialize;

/// What went wrong with a request or its connection.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Nobody listened.
    Refused,
    /// The network said that there is no way to the target.
    Unreachable,
    /// The connection was reset before the handshake was done.
    ResetBeforeAccept,
    /// The connection was reset before the first byte of the answer.
    ResetBeforeFirstByte,
    /// The connection was closed before the first byte of the answer.
    EofBeforeFirstByte,
    /// The connection ended within a request or an answer.
    CutInTheMiddle,
    /// Nothing happened for the plan's timeout.
    TimedOut,
    /// The answer could not be understood, or was an error.
    WrongAnswer,
    /// A generation answered that the plan does not expect.
    WrongGeneration,
    /// A connection got an answer of another generation than before.
    Moved,
    /// The handshake took as long as a repeated SYN. The request went on and is counted as well.
    Slow,
    /// The generator itself ran out of something (ports, descriptors): says nothing about the server.
    Local,
}

/// What the generator ran out of.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortage {
    /// Local ports towards this target.
    Ports,
    /// Descriptors, of the process or of the machine.
    Descriptors,
    /// Memory for sockets.
    Memory,
}

/// One failure, with what it takes to understand it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// What was lacking, with [`FailureKind::Local`].
    pub(super) shortage: Option<Shortage>,
    pub(super) detail: String,
    pub(super) of: Identity,
}

/// What is known of the connection that failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity {
    pub(super) started: Option<Instant>,
    pub(super) client: Option<SocketAddr>,
    pub(super) generation: Option<u32>,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, shortage: None, detail: detail.into(), of: Identity::default() }
    }

    /// The same, as a failure of a connection that is known.
    pub(super) fn of(self, of: Identity) -> Self {
        Self { of, ..self }
    }

    /// A socket that could not be made.
    pub(super) fn opening(error: &io::Error) -> Self {
        let failure = Self::new(FailureKind::Local, format!("make a socket: {error}"));
        Self { shortage: Shortage::of(error), ..failure }
    }

    /// A failed attempt to connect.
    pub(super) fn connecting(error: &io::Error) -> Self {
        let kind = match errno(error) {
            Some(Errno::ECONNREFUSED) => FailureKind::Refused,
            Some(Errno::ECONNRESET) => FailureKind::ResetBeforeAccept,
            Some(Errno::ETIMEDOUT) => FailureKind::TimedOut,
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH) => FailureKind::Unreachable,
            _ => FailureKind::Local,
        };
        Self { shortage: Shortage::of(error), ..Self::new(kind, format!("connect: {error}")) }
    }

    /// A failed read or write.
    pub(super) fn talking(error: &io::Error, progress: Progress) -> Self {
        let kind = match (errno(error), progress) {
            (Some(Errno::ETIMEDOUT), _) => FailureKind::TimedOut,
            // Of a datagram one hears only afterwards that nobody took it.
            (Some(Errno::ECONNREFUSED), _) => FailureKind::Refused,
            (Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH), _) => FailureKind::Unreachable,
            (Some(Errno::ECONNRESET | Errno::EPIPE), Progress::Begun) => {
                FailureKind::CutInTheMiddle
            }
            (Some(Errno::ECONNRESET), Progress::None) => FailureKind::ResetBeforeFirstByte,
            // The server had closed its side already when the request was written.
            (Some(Errno::EPIPE), Progress::None) => FailureKind::EofBeforeFirstByte,
            (_, Progress::Begun | Progress::None) => FailureKind::Local,
        };
        Self { shortage: Shortage::of(error), ..Self::new(kind, error.to_string()) }
    }

    /// A connection that ended where more was due.
    pub(super) fn ended(progress: Progress, detail: impl Into<String>) -> Self {
        match progress {
            Progress::None => Self::new(FailureKind::EofBeforeFirstByte, detail),
            Progress::Begun => Self::new(FailureKind::CutInTheMiddle, detail),
        }
    }
}

impl Shortage {
    fn of(error: &io::Error) -> Option<Self> {
        match errno(error)? {
            // A bind to a port that is taken says the latter; nobody asks for a particular one.
            Errno::EADDRNOTAVAIL | Errno::EADDRINUSE => Some(Self::Ports),
            Errno::EMFILE | Errno::ENFILE => Some(Self::Descriptors),
            Errno::ENOBUFS | Errno::ENOMEM => Some(Self::Memory),
            _ => None,
        }
    }
}

/// Whether a part of the exchange had been through when it failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    None,
    Begun,
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connecting(errno: Errno) -> FailureKind {
        Failure::connecting(&io::Error::from(errno)).kind
    }

    #[test]
    fn lack_of_ports_or_descriptors_is_not_the_servers_failure() {
        for errno in [Errno::EADDRNOTAVAIL, Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS] {
            assert_eq!(connecting(errno), FailureKind::Local, "{errno}");
            assert!(Failure::opening(&io::Error::from(errno)).shortage.is_some(), "{errno}");
        }
    }

    #[test]
    fn a_refused_connection_differs_from_a_reset_one() {
        assert_eq!(connecting(Errno::ECONNREFUSED), FailureKind::Refused);
        assert_eq!(connecting(Errno::ECONNRESET), FailureKind::ResetBeforeAccept);
    }

    #[test]
    fn a_reset_is_named_by_how_far_the_answer_had_come() {
        let reset = io::Error::from(Errno::ECONNRESET);
        assert_eq!(
            Failure::talking(&reset, Progress::None).kind,
            FailureKind::ResetBeforeFirstByte
        );
        assert_eq!(Failure::talking(&reset, Progress::Begun).kind, FailureKind::CutInTheMiddle);
    }
}
