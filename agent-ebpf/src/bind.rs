//! What happens when a process of a generation binds a port of its own service.

/// Value of `BIND_RULES`, whose key is a generation that the agent launches.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindRule {
    /// One of [`SHARE`], [`MOVE`].
    pub action: u32,
    /// The user that owns the sockets to share the port with: the kernel lets only sockets of one user share
    /// (`inet_bind_conflict`), so that a bind by another user is moved.
    pub owner: u32,
}

/// Switch on `SO_REUSEADDR` and `SO_REUSEPORT`, so that old and new listener sit on one port.
pub const SHARE: u32 = 0;
/// Bind a free port instead; `steer` does not care where a listener is bound.
pub const MOVE: u32 = 1;

const _: () = assert!(size_of::<BindRule>() == 8);
