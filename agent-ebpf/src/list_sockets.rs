//! `list_sockets`: which process has which sockets open.
//!
//! The same is in `/proc`, where each descriptor is two system calls: a process with 20,000 of them, none of them a socket, costs
//! 0.2 s there, and 1 ms here.

use core::ffi::c_void;

use agent_ebpf::holder::SocketHolder;
use aya_ebpf::{
    bindings::file,
    helpers::{bpf_sock_from_file, generated::bpf_seq_write},
};

use crate::{
    adopt_listeners::Meta,
    kernel::{Task, inode_of},
};

/// The context of `iter/task_file` (`struct bpf_iter__task_file`): each member is in a field of eight bytes.
#[repr(C)]
pub(crate) struct FileIteration {
    meta: *mut Meta,
    task: *mut c_void,
    _descriptor: u64,
    file: *mut file,
}

/// Threads that share their files with the first one are left out by the kernel, and those that do not by us.
// aya-ebpf has no macro for file iterators.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn list_sockets(ctx: *mut FileIteration) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: the file is the iterator's own argument. The helper returns null for one that is no socket.
    if unsafe { bpf_sock_from_file(file) }.is_null() {
        return 0;
    }
    let task = Task::new(task);
    let Some(level) = Task::current().level() else { return 0 };
    if let (Some(_), Some(pid), Some(inode)) =
        (task.process(), task.number_at(level), inode_of(file.cast()))
    {
        let holder = SocketHolder { inode, pid, padding: 0 };
        let length = size_of::<SocketHolder>() as u32;
        // SAFETY: the kernel passes a valid context, whose first member points to one that begins with the file to write to. A
        // full buffer makes the reader come again.
        unsafe { bpf_seq_write((*(*ctx).meta).output, (&raw const holder).cast(), length) };
    }
    0
}
