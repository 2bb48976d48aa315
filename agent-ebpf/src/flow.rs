//! Whose a connection is, and how many there are.

/// Key of `FLOWS`: one generation of one service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationKey {
    /// The service.
    pub service: u32,
    /// The generation within the service.
    pub generation: u32,
}

/// Value of `TAGS`, the socket storage that every accepted connection inherits from its listener (`BPF_F_CLONE`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Whose socket this is.
    pub generation: GenerationKey,
    /// One of [`LISTENER`], [`OPEN`], [`CLOSED`], [`CHANGING`].
    pub role: u32,
    /// Bits of [`SET_REUSE_PORT`] and [`SET_REUSE_ADDRESS`]: options that we switched on and that release switches off.
    pub options_set: u32,
}

/// A listener, or a connection that inherited this and is not established yet.
pub const LISTENER: u32 = 0;
/// A connection that was counted as opened.
pub const OPEN: u32 = 1;
/// A connection that has ended.
pub const CLOSED: u32 = 2;
/// A connection that `adopt_flow` is at work on. It has not seen the end if [`CLOSED`] takes this one's place, and counts it.
pub const CHANGING: u32 = 3;

/// `SO_REUSEPORT` was off before we came.
pub const SET_REUSE_PORT: u32 = 1;
/// `SO_REUSEADDR` was off before we came.
pub const SET_REUSE_ADDRESS: u32 = 2;

/// Value of `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Connections that became established, and those that were open when the generation was found.
    pub opened: u64,
    /// Of those, the ones that ended.
    pub closed: u64,
    /// Of those, the ones that ended without a FIN from our side (`ESTABLISHED` or `CLOSE_WAIT` straight to `CLOSE`).
    pub reset: u64,
}

impl FlowCounts {
    /// Those that are open.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }
}

const _: () = assert!(size_of::<GenerationKey>() == 8);
const _: () = assert!(size_of::<Tag>() == 16);
const _: () = assert!(size_of::<FlowCounts>() == 24);
