//! `list_sockets`: which process has which sockets open.
//!
//! The same is in `/proc`, where each descriptor costs two system calls, and anybody may have 20,000 in each of his processes.

use core::ffi::c_void;

use agent_ebpf::holder::SocketHolder;
use aya_ebpf::{bindings::file, helpers::bpf_sock_from_file};

use crate::{
    iteration::{Meta, tell_reader},
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
    let (meta, task, file) = unsafe { ((*ctx).meta, (*ctx).task, (*ctx).file) };
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
        tell_reader(meta, &SocketHolder { inode, pid, padding: 0 });
    }
    0
}
