//! What the agent keeps of root's rights, once the launcher has been started with all of them.
//!
//! What it reads comes from servers, which may be hostile: whoever gets hold of it that way must not get all of the machine.
//! Being root stays: files that are root's are its own.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use super::filter;
use crate::api::{Problem, ProblemKind};

/// Each with what needs it; `tests/tests/capabilities.rs` shows what fails without.
const KEPT: [CapabilitySet; 9] = [
    // Steering, `sock_diag` of all users, binding by force.
    CapabilitySet::NET_ADMIN,
    // Maps, programs, and both by number; control groups, the BPF file system. CAP_BPF and CAP_PERFMON are parts of it
    // (`bpf_capable`, `perfmon_capable`).
    CapabilitySet::SYS_ADMIN,
    // Descriptors and environments of other users' processes.
    CapabilitySet::SYS_PTRACE,
    // Generations of other users are told to end.
    CapabilitySet::KILL,
    // PID files, sockets and directories of other users.
    CapabilitySet::DAC_OVERRIDE,
    // Second names of files of others (`fs.protected_hardlinks`).
    CapabilitySet::FOWNER,
    // A socket in a reuseport group is that of its user.
    CapabilitySet::CHOWN,
    // Such sockets on ports below 1024.
    CapabilitySet::NET_BIND_SERVICE,
    // More descriptors than the limit.
    CapabilitySet::SYS_RESOURCE,
];

/// Gives the others up, and system calls that the agent has no use for. To be called while there is one thread: rights are
/// each thread's own, and those to come inherit them.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn give_up() -> Result<(), Problem> {
    drop_capabilities().map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("give up capabilities: {error}"))
    })?;
    filter::apply()
}

fn drop_capabilities() -> rustix::io::Result<()> {
    let kept = KEPT.into_iter().fold(CapabilitySet::empty(), CapabilitySet::union);
    let now = capabilities(None)?;
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            // Whoever may not is bounded by what is dropped below: nothing is executed any more.
            Ok(true) if !kept.contains(one) && now.effective.contains(CapabilitySet::SETPCAP) => {
                remove_capability_from_bounding_set(one)?;
            }
            Ok(_) => {}
            // This kernel knows no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    clear_ambient_capability_set()?;
    let left = now.permitted & kept;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable })?;
    set_no_new_privs(true)
}
