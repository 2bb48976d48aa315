//! What is asked to be done to one running socket, and what comes of it.

use crate::flow::{GenerationKey, Tag};

/// Value of `ADOPTIONS`, whose key is the cookie of a listener: what `adopt_listeners` is to do.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// [`ADOPT`], [`RELEASE`] or [`EXAMINE`].
    pub action: u32,
    /// Its slot in `LISTENERS`, or [`NO_SLOT`]. Answer to [`EXAMINE`]: the number of the program that chooses among the
    /// listeners of its group, 0 for one of the classic kind.
    pub slot: u32,
    /// Not zero to switch on the options that let another socket bind the same port.
    pub share: u32,
    /// Answer: one of [`NOT_SEEN`], [`DONE`], [`HAS_PROGRAM`], or a negative errno of the step that failed.
    pub outcome: i32,
    /// The tag to give.
    pub tag: Tag,
}

/// What `adopt_flow` is to do, as its packet. It answers as [`Adoption::outcome`] does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRequest {
    /// What the kernel takes for an Ethernet header, without which it runs no such program (`bpf_prog_test_run_skb`).
    pub header: [u8; 16],
    /// [`ADOPT`], [`MOVE`] or [`RELEASE`].
    pub action: u32,
    /// Not zero if the tuple is of IPv4 addresses.
    pub is_ipv4: u32,
    /// Whose flow it is to be.
    pub generation: GenerationKey,
    /// The flow as its packets show it, the client first: two addresses, two ports, in network byte order, without gaps
    /// (`struct bpf_sock_tuple`).
    pub tuple: [u8; 36],
}

/// Tag a listener, share its port, and put it into its slot. Tag a flow, and count it as opened.
pub const ADOPT: u32 = 0;
/// Remove the tag, and switch off the options that adopting switched on.
pub const RELEASE: u32 = 1;
/// Give a flow another tag than the one it inherited, because a listener of another generation accepted it.
pub const MOVE: u32 = 2;

/// Say whether a program chooses among the listeners that share its port.
pub const EXAMINE: u32 = 3;

/// The generation's listener is not for the socket map.
pub const NO_SLOT: u32 = u32::MAX;

/// The socket was not met: it was gone.
pub const NOT_SEEN: i32 = 1;
/// A program chooses among the listeners of its group.
pub const HAS_PROGRAM: i32 = 2;
/// Everything asked for was done.
pub const DONE: i32 = 0;

const _: () = assert!(size_of::<Adoption>() == 32);
const _: () = assert!(size_of::<FlowRequest>() == 68);
