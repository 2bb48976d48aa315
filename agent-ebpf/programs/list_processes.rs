//! `list_processes`: who runs, whose child, as whom, and which program.
//!
//! The same is in `/proc`, where each process costs three system calls and each question is one more.

use core::ffi::c_void;

use agent_ebpf::process::ProcessRow;

use crate::{
    iteration::{Meta, tell_reader},
    kernel::Task,
};

/// The context of `iter/task` (`struct bpf_iter__task`): each member is a pointer in a field of eight bytes.
#[repr(C)]
pub(crate) struct TaskIteration {
    pub(crate) meta: *mut Meta,
    pub(crate) task: *mut c_void,
}

/// The kernel walks the threads of the reader's PID namespace.
// aya-ebpf has no macro for task iterators.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn list_processes(ctx: *mut TaskIteration) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let task = Task::new(task);
    let (Some(_), Some(level)) = (task.process(), Task::current().level()) else { return 0 };
    let Some(pid) = task.process_at(level) else { return 0 };
    let row = ProcessRow {
        program: task.program().unwrap_or_default(),
        code: task.code().unwrap_or_default(),
        stack: task.stack().unwrap_or_default(),
        pid,
        parent: task.parent_at(level).unwrap_or_default(),
        session: task.session_at(level).unwrap_or_default(),
        user: task.user().unwrap_or_default(),
        real_user: task.real_user().unwrap_or_default(),
        inside: task.process_inside().unwrap_or_default(),
        threads: task.threads().unwrap_or_default(),
        padding: 0,
    };
    tell_reader(meta, &row);
    0
}
