//! What the socket iterator (`adopt_sockets`) is asked to do to one socket, and what it answers.

use crate::flow::Tag;

/// Value of `ADOPTIONS`, whose key is a socket cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// One of [`ADOPT_LISTENER`], [`ADOPT_FLOW`], [`MOVE_FLOW`], [`RELEASE`].
    pub action: u32,
    /// For a listener: its slot in `LISTENERS`, or [`NO_SLOT`].
    pub slot: u32,
    /// Not zero to switch on the options that let another socket bind the same port.
    pub share: u32,
    /// Answer: one of [`NOT_SEEN`], [`DONE`], or a negative errno of the step that failed.
    pub outcome: i32,
    /// The tag to give.
    pub tag: Tag,
}

/// Tag a listener, share its port, and put it into its slot.
pub const ADOPT_LISTENER: u32 = 0;
/// Tag a connection that was open before its listener had a tag, and count it as opened.
pub const ADOPT_FLOW: u32 = 1;
/// Remove the tag and switch off the options that adopting switched on.
pub const RELEASE: u32 = 2;

/// Give a connection another tag than the one it inherited, because a listener of another generation accepted it.
pub const MOVE_FLOW: u32 = 3;

/// The generation's listener is not for the socket map.
pub const NO_SLOT: u32 = u32::MAX;

/// The iterator has not met this socket: it was gone.
pub const NOT_SEEN: i32 = 1;
/// Everything asked for was done.
pub const DONE: i32 = 0;

const _: () = assert!(size_of::<Adoption>() == 32);
