//! The capabilities that the agent works with, and what is lost without each.
//!
//! `tests/tests/capabilities.rs` takes each of them away and sees what fails.

use rustix::thread::{CapabilitySet, capabilities};

/// A capability, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    set: CapabilitySet,
    /// As `capabilities(7)` calls it.
    pub name: &'static str,
    /// Whether the agent does not work at all without it.
    pub is_needed: bool,
    /// What cannot be done without it.
    pub lost: &'static str,
}

impl Capability {
    const fn needed(set: CapabilitySet, name: &'static str, lost: &'static str) -> Self {
        Self { set, name, is_needed: true, lost }
    }

    const fn wanted(set: CapabilitySet, name: &'static str, lost: &'static str) -> Self {
        Self { set, name, is_needed: false, lost }
    }
}

/// What the agent keeps.
const KEPT: [Capability; 9] = [
    // `bpf_prog_get_fd_by_id`, `bpf_map_get_fd_by_id`, `setns`; `bpf_capable`, `perfmon_capable`
    Capability::needed(
        CapabilitySet::SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "the kernel shows no program or map by its number, no server is started in its namespaces, and, where CAP_BPF and \
         CAP_PERFMON are missing, too, which are parts of it, no kernel program can be loaded",
    ),
    Capability::needed(
        CapabilitySet::SYS_PTRACE,
        "CAP_SYS_PTRACE",
        "nobody can see whose a listener is",
    ),
    Capability::needed(
        CapabilitySet::DAC_OVERRIDE,
        "CAP_DAC_OVERRIDE",
        "PID files, sockets and directories of other users cannot be reached",
    ),
    Capability::wanted(
        CapabilitySet::NET_ADMIN,
        "CAP_NET_ADMIN",
        "connections that nobody has accepted are lost with their listener, and a port cannot be held",
    ),
    // Who joins a reuseport group binds its port.
    Capability::wanted(
        CapabilitySet::NET_BIND_SERVICE,
        "CAP_NET_BIND_SERVICE",
        "the same on ports below 1024",
    ),
    // A socket in a reuseport group is that of its user.
    Capability::wanted(CapabilitySet::CHOWN, "CAP_CHOWN", "the same of servers of other users"),
    Capability::wanted(
        CapabilitySet::KILL,
        "CAP_KILL",
        "servers of other users are killed in place of being told to end",
    ),
    // Second names of files of others (`fs.protected_hardlinks`).
    Capability::wanted(
        CapabilitySet::FOWNER,
        "CAP_FOWNER",
        "sockets that two generations of another user go by are lost with the first",
    ),
    Capability::wanted(
        CapabilitySet::SYS_RESOURCE,
        "CAP_SYS_RESOURCE",
        "a generation gets no higher limits than the agent's own",
    ),
];

/// What only the launcher needs, which the agent starts before it gives the others up.
const OF_LAUNCHER: [Capability; 2] = [
    Capability::wanted(
        CapabilitySet::SETUID,
        "CAP_SETUID",
        "servers of other users cannot be started",
    ),
    Capability::wanted(
        CapabilitySet::SETGID,
        "CAP_SETGID",
        "servers of other groups cannot be started",
    ),
];

/// All that the agent keeps.
pub fn kept() -> CapabilitySet {
    KEPT.iter().fold(CapabilitySet::empty(), |all, one| all | one.set)
}

/// All that are used, the needed ones first.
pub fn all() -> impl Iterator<Item = Capability> {
    KEPT.into_iter().chain(OF_LAUNCHER)
}

/// The names of all that are used.
pub fn names() -> String {
    let names: Vec<_> = all().map(|it| it.name).collect();
    format!("{} (CAP_BPF and CAP_PERFMON are parts of CAP_SYS_ADMIN)", names.join(", "))
}

/// Those that this process has not, the needed ones first.
///
/// # Errors
///
/// When the kernel does not say.
pub fn lacking() -> rustix::io::Result<Vec<Capability>> {
    Ok(lacking_in(capabilities(None)?.effective))
}

fn lacking_in(effective: CapabilitySet) -> Vec<Capability> {
    all().filter(|it| !effective.contains(it.set)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named_with_what_is_lost() {
        assert!(lacking_in(CapabilitySet::all()).is_empty());
        let lacking = lacking_in(CapabilitySet::all() - CapabilitySet::SYS_PTRACE);
        assert_eq!(lacking.iter().map(|it| it.name).collect::<Vec<_>>(), ["CAP_SYS_PTRACE"]);
        assert!(lacking[0].is_needed);
        let lacking = lacking_in(CapabilitySet::empty());
        assert!(lacking.is_sorted_by_key(|it| !it.is_needed), "{lacking:?}");
        assert_eq!(lacking.len(), KEPT.len() + OF_LAUNCHER.len());
    }
}
