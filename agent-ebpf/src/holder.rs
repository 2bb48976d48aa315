//! Who has a socket open.

/// What `list_sockets` writes for each socket that a process has open.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketHolder {
    /// The number of the socket's inode, as `/proc/PID/fd` shows it.
    pub inode: u64,
    /// The number of the process, in the PID namespace of whoever reads.
    pub pid: u32,
    /// Nothing.
    pub padding: u32,
}

const _: () = assert!(size_of::<SocketHolder>() == 16);
