//! The process that starts servers: it keeps the rights that this takes, and the agent, which reads what servers say of
//! themselves, can do without.
//!
//! ```text
//! agent ── request, descriptors ──> launcher ── spawn ──> trampoline
//!   │ <── number ── … one after the other ──┘                 │
//!   │ <── report ─────────────────────────────────────────────┘
//! ```
//!
//! It answers each request at once and waits for no trampoline. Servers are its children, so that it is the one who can say how
//! they ended. It ends with the agent, by the end of their connection, and the servers go on as anybody's orphans do.
//!
//! The agent starts it, or connects to a socket for which a service manager does: that one can confine the agent then, and not the
//! servers too.

mod handle;
mod process;

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use handle::{Launcher, NotStarted};
pub use process::launcher;

use super::report::Failure;
use crate::host::process::{Ending, Pid};

/// The argument that makes a program call [`launcher()`].
pub const LAUNCHER_ARGUMENT: &str = "launcher";

/// What the agent asks for.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Start a trampoline with the descriptors that come along: input, report, log, specification, then the sockets to pass.
    Spawn {
        /// Whether in the PID namespace of the process that the input is.
        in_pid_namespace: bool,
    },
    /// Say how a child ended, and take the zombie away.
    Reap(Pid),
    /// Say who you are.
    Introduce,
}

/// What the launcher answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Spawned(Pid),
    /// The PID namespace could not be entered.
    NotEntered(Failure),
    /// The program of the agent could not be executed.
    NotSpawned(Failure),
    /// Nothing if it has not ended, or is not the launcher's child.
    Reaped(Option<Ending>),
    Introduced(Pid),
    /// It cannot do its work, and ends: what it could not do, and the number of the system's error.
    Unready {
        what: String,
        number: i32,
    },
}

/// Messages come whole (`SOCK_SEQPACKET`), and none is longer than a step, a path and an error.
const LONGEST: usize = 16 << 10;
/// The kernel passes so many at once (`SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;

fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    // Whoever is gone is an error, no signal.
    sendmsg(socket, &[IoSlice::new(&json)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message and what came along; `None` when the other end is gone.
fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; LONGEST];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut text = [IoSliceMut::new(&mut text)];
        match recvmsg(&socket, &mut text, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..received.bytes])?, descriptors)))
}
