//! `follow_fork`, `follow_exit`, `enlist`: which processes belong to a generation.
//!
//! A process belongs by birth: whatever a member forks is a member, however deep, whoever becomes its parent later, and
//! whichever control group or program it moves to. The first of a family is taken in by the agent (`enlist`), which is for
//! a moment a member itself while it launches a generation.

use core::ffi::c_void;

use agent_ebpf::{MAX_MEMBERS_OF_SERVICE, member::Member};
use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use crate::{
    kernel::Task,
    list_processes::TaskIteration,
    maps::{ENLISTMENTS, LOST_REPORTS, MEMBER_COUNTS, MEMBERS},
    track_flows::{add, subtract},
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

/// Why a process is not taken in.
enum Full {
    /// Its service has as many as one may have, which is nobody else's business.
    Share,
    /// All services together have.
    All,
}

/// Takes a process in, as long as its service has fewer than its share.
#[inline(always)]
fn take_in(process: u32, member: Member) -> Result<(), Full> {
    let count = MEMBER_COUNTS.get_ptr_mut(member.generation.service).ok_or(Full::All)?;
    // SAFETY: RCU keeps the element while the program runs.
    let before = unsafe { MEMBERS.get(process) }.map(|before| before.generation.service);
    if before == Some(member.generation.service) {
        return MEMBERS.insert(process, member, 0).map_err(|_refused| Full::All);
    }
    if before.is_some() {
        let_go(process);
    }
    if add(count) >= u64::from(MAX_MEMBERS_OF_SERVICE) {
        subtract(count);
        return Err(Full::Share);
    }
    MEMBERS.insert(process, member, u64::from(BPF_NOEXIST)).map_err(|_refused| {
        subtract(count);
        Full::All
    })
}

/// Nobody's any more. Whoever lets it go before us does what we want.
#[inline(always)]
fn let_go(process: u32) {
    // SAFETY: RCU keeps the element while the program runs.
    let Some(member) = (unsafe { MEMBERS.get(process) }) else { return };
    let service = member.generation.service;
    if MEMBERS.remove(process).is_ok()
        && let Some(count) = MEMBER_COUNTS.get_ptr_mut(service)
    {
        subtract(count);
    }
}

/// Runs in the parent, before the child does. A process that is nobody's costs one lookup.
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn follow_fork(ctx: BtfTracePointContext) -> i32 {
    let Some(parent) = current_member() else { return 0 };
    let child = Task::new(ctx.arg::<*const c_void>(1));
    // A new thread is no new process.
    let Some(process) = child.process() else { return 0 };
    let pid = child.number_at(parent.level).unwrap_or_default();
    if let Err(Full::All) = take_in(process, Member { pid, ..*parent })
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
        let_go(current_process());
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
    if !is_nobodys {
        // The agent asks the map who was taken in.
        let _: Result<(), Full> =
            take_in(process, Member { generation: wish.generation, pid, level });
    }
    // Only after that: the last thread counts as ended (`do_exit`) before `follow_exit` is called, so that one of us sees it.
    if is_nobodys || task.living_threads().is_none_or(|left| left == 0) {
        let_go(process);
    }
    0
}
