//! `follow_fork`, `follow_exit`, `enlist`: which processes belong to a generation.
//!
//! A process belongs by birth: whatever a member forks is a member, however deep, whoever becomes its parent later, and
//! whichever control group or program it moves to. The first of a family is taken in by the agent (`enlist`), which is for
//! a moment a member itself while it launches a generation.

use core::ffi::c_void;

use agent_ebpf::member::Member;
use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid, macros::btf_tracepoint, programs::BtfTracePointContext,
};

use crate::{
    kernel::Task,
    list_processes::TaskIteration,
    maps::{ENLISTMENTS, LOST_REPORTS, MEMBERS},
    track_flows::add,
};

/// The member that runs now, if it is one.
#[inline(always)]
pub(crate) fn current_member() -> Option<&'static Member> {
    // SAFETY: RCU keeps the element while the program runs.
    unsafe { MEMBERS.get(current_process()) }
}

#[inline(always)]
fn current_process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Runs in the parent, before the child does. A process that is nobody's costs one lookup.
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn follow_fork(ctx: BtfTracePointContext) -> i32 {
    let Some(parent) = current_member() else { return 0 };
    let child = Task::new(ctx.arg::<*const c_void>(1));
    // A new thread is no new process.
    let Some(process) = child.process() else { return 0 };
    let pid = child.number_at(parent.level).unwrap_or_default();
    if MEMBERS.insert(process, Member { pid, ..*parent }, 0).is_err()
        && let Some(lost) = LOST_REPORTS.get_ptr_mut(agent_ebpf::event::LOST)
    {
        add(lost);
    }
    0
}

/// Runs in each thread that ends. The process ends with its last thread, which need not be the first one.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn follow_exit(_ctx: BtfTracePointContext) -> i32 {
    if current_member().is_some() && Task::current().living_threads().is_none_or(|left| left == 0) {
        // Whoever removed it before us did what we want.
        let _: Result<(), i32> = MEMBERS.remove(current_process());
    }
    0
}

/// Takes in the processes that the agent names, by the numbers of its own PID namespace, or lets them go. The kernel walks
/// the threads of the reader's PID namespace.
// aya-ebpf has no macro for task iterators.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn enlist(ctx: *mut TaskIteration) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return 0;
    }
    let task = Task::new(task);
    let (Some(process), Some(level)) = (task.process(), Task::current().level()) else { return 0 };
    let Some(pid) = task.number_at(level) else { return 0 };
    // SAFETY: RCU keeps the element while the program runs.
    let Some(wish) = (unsafe { ENLISTMENTS.get(pid) }) else { return 0 };
    let is_nobodys = wish.generation.service == 0;
    // The agent asks the map who is in it.
    if !is_nobodys {
        let _: Result<(), i32> =
            MEMBERS.insert(process, Member { generation: wish.generation, pid, level }, 0);
    }
    // Only after that: the last thread counts as ended (`do_exit`) before `follow_exit` is called, so that one of us sees it.
    if is_nobodys || task.living_threads().is_none_or(|left| left == 0) {
        let _: Result<(), i32> = MEMBERS.remove(process);
    }
    0
}
