//! Which processes belong to a generation: those that were taken in, and whatever is born of them.

use crate::flow::GenerationKey;

/// Value of `MEMBERS`, whose key is a process's number as the kernel's first PID namespace has it (`tgid`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whose it is.
    pub generation: GenerationKey,
    /// Its number in the PID namespace of the agent that took in the first of its family.
    pub pid: u32,
    /// How deep that namespace is: 0 for the machine's first one.
    pub level: u32,
}

/// Value of `ENLISTMENTS`, whose key is a process's number as the agent has it: what `enlist` is to do with it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enlistment {
    /// Whose it becomes; of service 0 it belongs to nobody.
    pub generation: GenerationKey,
}

/// Where the fields are that the programs read of the kernel's own structures: each kernel has places of its own, and its
/// type information (BTF) tells them. In bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLayout {
    /// `task_struct.pid`: the number of a thread.
    pub task_pid: u32,
    /// `task_struct.tgid`: the number of its process.
    pub task_tgid: u32,
    /// `task_struct.thread_pid`: its numbers in all PID namespaces that it is in.
    pub task_thread_pid: u32,
    /// `task_struct.signal`: what the threads of a process share.
    pub task_signal: u32,
    /// `signal_struct.live`: how many threads have not begun to end.
    pub signal_live: u32,
    /// `file.f_inode`: what a file is.
    pub file_inode: u32,
    /// `inode.i_ino`: its number.
    pub inode_number: u32,
    /// `pid.level`: how deep the namespace is that the process lives in.
    pub pid_level: u32,
    /// `pid.numbers`: one for each namespace, from the machine's first one down.
    pub pid_numbers: u32,
    /// How many the type itself has room for; 0 where it has an open end (Linux 6.6).
    pub pid_numbers_declared: u32,
    /// The size of such a number (`upid`).
    pub upid_size: u32,
    /// `upid.nr`: the number itself.
    pub upid_nr: u32,
    /// `sock_common.skc_num`: the local port, with which `sock` begins.
    pub sock_port: u32,
    /// `sock_common.skc_net`: the network namespace that a socket is in.
    pub sock_namespace: u32,
    /// `net.ns.inum`: the number of a network namespace.
    pub namespace_number: u32,
    /// `sock.sk_reuseport_cb`: the group of the listeners that share its port.
    pub sock_group: u32,
    /// `sock_reuseport.prog`: the program that chooses among them.
    pub group_program: u32,
    /// `bpf_prog.aux`: what is known of a program.
    pub program_aux: u32,
    /// `bpf_prog_aux.id`: its number; 0 for one of the classic kind.
    pub aux_id: u32,
    /// `sock.sk_lock.owned`: whether somebody has a socket to themselves.
    pub lock_owned: u32,
    /// `sock_common.skc_prot`: what a socket is, as its kind and whoever has taken it over see it.
    pub sock_proto: u32,
    /// `sock.sk_prot_creator`: what it was made as.
    pub sock_creator: u32,
    /// `sock.sk_user_data`: what whoever has taken it over keeps with it, and in its lowest bits who that is.
    pub sock_user_data: u32,
    /// `signal_struct.pids`: the numbers that the threads of a process share.
    pub signal_pids: u32,
    /// `task_struct.real_parent`: who forked it, or has taken its place.
    pub task_parent: u32,
    /// `task_struct.cred`: as whom it acts.
    pub task_cred: u32,
    /// `cred.euid`: the effective user.
    pub cred_user: u32,
    /// `cred.uid`: the real user.
    pub cred_real_user: u32,
    /// `signal_struct.nr_threads`: how many threads a process has.
    pub signal_threads: u32,
    /// `task_struct.mm`: its memory.
    pub task_mm: u32,
    /// `mm_struct.start_code`: where its program is.
    pub mm_code: u32,
    /// `mm_struct.start_stack`: where its stack begins.
    pub mm_stack: u32,
    /// `mm_struct.exe_file`: the file of its program.
    pub mm_file: u32,
    /// `file.f_path.dentry`: the entry by which a file was opened.
    pub file_entry: u32,
    /// Where an entry has a short name: `dentry.d_iname`, or `d_shortname` (Linux 6.15).
    pub entry_name: u32,
}

/// The deepest that PID namespaces are nested (`MAX_PID_NS_LEVEL`).
pub const MAX_PID_LEVEL: u32 = 32;

const _: () = assert!(size_of::<Member>() == 16);
const _: () = assert!(size_of::<Enlistment>() == 8);
const _: () = assert!(size_of::<KernelLayout>() == 140);
