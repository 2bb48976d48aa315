//! What processes there are, and which sockets they have open.

/// What `list_processes` writes for each process, by the numbers of the PID namespace of whoever reads. What the kernel does
/// not have is 0: a kernel thread and a process that has ended run no program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessRow {
    /// The inode of its program's file.
    pub program: u64,
    /// Where the kernel placed its program (`mm_struct.start_code`).
    pub code: u64,
    /// Where the kernel placed its stack (`mm_struct.start_stack`).
    pub stack: u64,
    /// Its number.
    pub pid: u32,
    /// Its parent's; 0 for one that has none here.
    pub parent: u32,
    /// That of the process which began its session; 0 for one that is not here.
    pub session: u32,
    /// Its effective user.
    pub user: u32,
    /// Its real user, whom the kernel counts it for (`RLIMIT_NPROC`).
    pub real_user: u32,
    /// Its number in the PID namespace that it lives in.
    pub inside: u32,
    /// How many threads it has.
    pub threads: u32,
    /// Nothing.
    pub padding: u32,
}

/// What `list_sockets` writes for each socket, and for each ring of io_uring, that a process has open.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRow {
    /// What tells an open file from all others, and has no other meaning: descriptors that were duplicated or inherited have it in
    /// common.
    pub file: u64,
    /// The number of a socket's inode, as `/proc/PID/fd` shows it; of a ring its descriptor.
    pub number: u64,
    /// The number of the process, in the PID namespace of whoever reads.
    pub pid: u32,
    /// [`SOCKET`] or [`RING`].
    pub kind: u32,
}

/// [`OpenRow::kind`] of a socket.
pub const SOCKET: u32 = 0;
/// [`OpenRow::kind`] of a ring, which can have sockets that have no descriptor.
pub const RING: u32 = 1;

const _: () = assert!(size_of::<ProcessRow>() == 56);
const _: () = assert!(size_of::<OpenRow>() == 24);
