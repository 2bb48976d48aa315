//! What the agent keeps of root's rights, once the launcher has been started with all of them.
//!
//! What it reads comes from servers, which may be hostile: whoever gets hold of it that way must not get all of the machine.
//! Being root stays: files that are root's are its own.

use agent_api::{Problem, ProblemKind};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use super::filter;
use crate::host::{self, seccomp::Launches};

/// Refuses to start without what the agent cannot do without.
///
/// # Errors
///
/// When it is not root of the machine, cannot see its processes, lacks a capability, or a filter refuses what it has to call.
pub(super) fn require(launches: Launches) -> Result<(), Problem> {
    if !rustix::process::geteuid().is_root() {
        let message = format!("the agent needs root with {}", host::capabilities::names());
        return Err(Problem::new(ProblemKind::Preflight, message).fix("run it with sudo"));
    }
    // Whatever else is found may be its answer.
    if let Some(filtered) = host::seccomp::filtered(launches) {
        return Err(filtered.into());
    }
    // It says in which user namespace we are.
    host::proc_mount::examine()?;
    host::sys_mount::examine()?;
    if !agent_terms::users::are_of_the_machine() {
        let message =
            "the agent needs root of the machine: this one is root of a user namespace only";
        return Err(Problem::new(ProblemKind::Preflight, message)
            .fix("run it as root of the machine, not in a rootless container"));
    }
    let lacking = host::capabilities::lacking().map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("ask for our capabilities: {error}"))
    })?;
    if let Some(lacking) = lacking.into_iter().find(|it| it.is_needed) {
        let message = format!("the agent lacks {}: without it {}", lacking.name, lacking.lost);
        return Err(Problem::new(ProblemKind::Preflight, message).fix(
            "run it with sudo; in a container, give it this capability (`agent doctor` says what else is missing)",
        ));
    }
    Ok(())
}

/// Gives the others up, and system calls that the agent has no use for. To be called while there is one thread: rights are
/// each thread's own, and those to come inherit them.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn give_up() -> Result<(), Problem> {
    drop_capabilities().map_err(|error| {
        Problem::new(ProblemKind::Preflight, "give up capabilities").because(&error)
    })?;
    filter::apply()
}

fn drop_capabilities() -> rustix::io::Result<()> {
    let kept = host::capabilities::kept();
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
