//! What the kernel tells the agent through the `EVENTS` ring buffer.

use crate::flow::GenerationKey;

/// One record of `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// One of the constants of this module.
    pub kind: u32,
    /// Whatever: no gap, which the kernel would not let a program send.
    pub unused: u32,
    /// Whose it is.
    pub generation: GenerationKey,
    /// The socket, where there is one.
    pub cookie: u64,
}

/// A process of a generation called `listen()`.
///
/// The kernel reports the state before it hashes the socket (`inet_csk_listen_start`), so a dump made at once can miss it.
pub const LISTENER_APPEARED: u32 = 1;
/// A listener with our tag was closed.
pub const LISTENER_GONE: u32 = 2;
/// The last open flow of a generation ended.
pub const GENERATION_EMPTY: u32 = 3;
/// A connection went to another generation than steering meant; `generation` is the one that was meant.
pub const FALLBACK_USED: u32 = 4;
/// A bind was moved to a free port because its user is not the owner of the shared port.
pub const BIND_MOVED: u32 = 5;
/// Connections that nobody had accepted were moved from a closed listener to one of `generation`.
pub const CONNECTIONS_MOVED: u32 = 6;
/// A process that is no generation's called `listen()` on a port of ours; `generation` names the service, or service 0 where
/// only some addresses of the port are endpoints.
pub const STRANGER_LISTENS: u32 = 7;

/// Index of `LOST_REPORTS`: how many events found the buffer full. Written by the programs only.
pub const LOST: u32 = 0;
/// Index of `LOST_REPORTS`: of those, how many an agent has noticed. Written by the agent only, and there rather than in its
/// memory because the next agent has to know.
pub const NOTICED: u32 = 1;

const _: () = assert!(size_of::<Event>() == 24);
