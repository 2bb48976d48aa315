//! Which system calls the agent is refused: it starts nothing, and changes neither itself nor the machine.
//!
//! A list of what is refused, not of what is allowed: the latter would be one of what libraries do today, and end the agent
//! with their next version.

use std::collections::BTreeMap;

use agent_api::{Problem, ProblemKind};
use nix::libc::{self, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Another program, another user, other namespaces, other processes' memory, the kernel itself, the clock, the machine.
const REFUSED: [c_long; 47] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_setuid,
    libc::SYS_setreuid,
    libc::SYS_setresuid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_mknodat,
];

/// Refuses them from now on, to this thread and those that it starts.
///
/// # Errors
///
/// When the kernel takes no filter.
pub(super) fn apply() -> Result<(), Problem> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Problem::new(ProblemKind::Failed, format!("{what} a filter of system calls: {error}"))
    };
    // `clone3` has its flags in memory, where no filter looks: without it libraries take `clone`.
    let absent = filter([(libc::SYS_clone3, Vec::new())], libc::ENOSYS);
    let refused = REFUSED.map(|call| (call, Vec::new())).into_iter();
    let refused = filter(refused.chain([(libc::SYS_clone, vec![a_process()?])]), libc::EPERM);
    for program in [absent, refused] {
        let program = program.map_err(|error| failed("make", &error))?;
        apply_filter(&program).map_err(|error| failed("apply", &error))?;
    }
    Ok(())
}

/// A clone that is no thread.
fn a_process() -> Result<SeccompRule, Problem> {
    const THREAD: u64 = libc::CLONE_THREAD as u64;
    let flags =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(THREAD), 0);
    let rule = flags.and_then(|flags| SeccompRule::new(vec![flags]));
    rule.map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("make a filter of system calls: {error}"))
    })
}

/// Answers these calls with an error, and lets all others pass.
fn filter(
    calls: impl IntoIterator<Item = (c_long, Vec<SeccompRule>)>,
    error: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, Vec<SeccompRule>> = calls.into_iter().collect();
    let answer = SeccompAction::Errno(error.cast_unsigned());
    let machine = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, answer, machine)?.try_into()
}
