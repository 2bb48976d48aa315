//! Listeners, flows and half-open requests, as the kernel lists them (`inet_diag` over netlink).
//!
//! One question is one dump: the kernel walks its socket tables and filters by state and local
//! port, so asking for one port of a machine with many sockets costs a walk but no copy of the
//! others; asking for several is one walk too. All answers are about the network namespace of the calling thread.
//!
//! Layout and semantics: `include/uapi/linux/inet_diag.h`, `net/ipv4/inet_diag.c`,
//! `net/ipv4/tcp_diag.c`, `net/mptcp/mptcp_diag.c` and `net/core/bpf_sk_storage.c` of Linux 6.12.

mod dump;
mod exact;
mod flows;
#[cfg(test)]
mod fuzz;
mod listeners;
mod request;
mod wire;

use std::{fmt, io};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use exact::connection_between;
pub use flows::{
    Connection, HalfOpen, PATIENCE, Stage, TcpState, connections, half_open, tagged_connections,
};
pub use listeners::{Listener, listeners, listeners_at, listeners_on, tagged_listeners};

/// The number the kernel gives a socket for its whole life and never gives again (`SO_COOKIE`).
#[doc(alias = "SO_COOKIE")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketCookie(pub u64);

/// The inode number that `/proc/PID/fd` shows for a socket, as in `socket:[12345]`.
///
/// It names a socket only while the socket is open: the kernel reuses the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketInode(pub u64);

impl fmt::Display for SocketCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SocketInode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What to do where the kernel cannot list sockets.
pub const MODULES: &str = "`modprobe -a inet_diag tcp_diag`, or boot a kernel with CONFIG_INET_DIAG=y and CONFIG_INET_TCP_DIAG=y";

/// What to do where nobody may ask it.
pub const FAMILY: &str = "let the agent have AF_NETLINK: in a unit by `RestrictAddressFamilies=`, in a container by its seccomp profile";

/// Why the kernel's socket tables could not be read.
#[derive(Debug, Error)]
pub enum SockDiagError {
    /// No netlink socket: often a seccomp filter or a kernel without `CONFIG_INET_DIAG`.
    #[error("open a netlink socket for socket diagnosis")]
    Open(#[source] io::Error),
    /// The request did not reach the kernel.
    #[error("send the request for {what}")]
    Send {
        /// What was asked for.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The answer did not reach us.
    #[error("receive the list of {what}")]
    Receive {
        /// What was asked for.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel answered with an error. Tags are refused with `EPERM` to a caller without
    /// `CAP_BPF` (or `CAP_NET_ADMIN`), and with `EINVAL` if the map is no socket storage.
    #[error("list {what}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The tables changed under every one of several dumps, so that no answer was complete.
    #[error("list {what}: the kernel's tables changed during each of `{attempts}` attempts")]
    Interrupted {
        /// What was asked for.
        what: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// The answer is not what the kernel's header files promise.
    #[error(
        "list {what}: malformed answer: got `{got}` bytes of {part}, expected at least `{expected}`"
    )]
    Malformed {
        /// What was asked for.
        what: &'static str,
        /// Which part of the answer is too short.
        part: &'static str,
        /// Its length.
        got: usize,
        /// The length that it must have.
        expected: usize,
    },
}
