//! `list_sockets`: which process has which sockets open, and which rings of io_uring, where more of them can be.
//!
//! The same is in `/proc`, where each descriptor costs two system calls, and anybody may have 20,000 in each of his processes.

use core::ffi::c_void;

use agent_ebpf::process::{OpenRow, RING, SOCKET};
use aya_ebpf::{bindings::file, helpers::bpf_sock_from_file};

use crate::{
    iteration::{Meta, tell_reader},
    kernel::{Task, inode_of, is_ring},
};

/// The context of `iter/task_file` (`struct bpf_iter__task_file`): each member is in a field of eight bytes.
#[repr(C)]
pub(crate) struct FileIteration {
    meta: *mut Meta,
    task: *mut c_void,
    descriptor: u64,
    file: *mut file,
}

/// The kernel passes over the threads that share their files with the first one. Those that do not are told of as their process:
/// a thread can have files of its own (`unshare(CLONE_FILES)`), and the first thread has none any more if it ended before the
/// others.
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
    let (number, kind) = if !unsafe { bpf_sock_from_file(file) }.is_null() {
        (inode_of(file.cast()), SOCKET)
    } else if is_ring(file.cast()) {
        // SAFETY: as above. It is a number of four bytes.
        (Some(unsafe { (*ctx).descriptor } & u64::from(u32::MAX)), RING)
    } else {
        return 0;
    };
    let Some(level) = Task::current().level() else { return 0 };
    if let (Some(pid), Some(number)) = (Task::new(task).process_at(level), number) {
        tell_reader(meta, &OpenRow { file: file as u64, number, pid, kind });
    }
    0
}
