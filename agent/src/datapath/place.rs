//! Where the programs of an agent are attached.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use aya_obj::generated::bpf_attach_type as hook;

use super::{
    DatapathError,
    behind::Attachment,
    error::program_error,
    programs::{ATTACHED, COMFORTS, STEER, tracepoint_of},
};

/// The network namespace and the control group that an agent is for, as the kernel numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    network_namespace: u64,
    /// Nothing where there is no such group: then nothing is attached to it either.
    cgroup: Option<u64>,
}

impl Place {
    /// The calling thread's network namespace, and the control group with this directory, if there is one.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn with(cgroup: Option<&Path>) -> Result<Self, DatapathError> {
        match cgroup.map(fs::metadata) {
            Some(Ok(known)) => Self::new(Some(known.ino())),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(program_error("find the control group for", "share_bind4")(error))
            }
            Some(Err(_)) | None => Self::new(None),
        }
    }

    /// Of the thread, which may have left the process's network namespace.
    fn new(cgroup: Option<u64>) -> Result<Self, DatapathError> {
        let namespace = fs::metadata("/proc/thread-self/ns/net")
            .map_err(program_error("find the network namespace for", STEER))?;
        Ok(Self { network_namespace: namespace.ino(), cgroup })
    }

    /// Whether this is where a program belongs.
    pub(super) fn is_of(self, program: &str, attachment: &Attachment) -> bool {
        match attachment {
            Attachment::Network { namespace, hook } => {
                (program, *namespace) == (STEER, self.network_namespace)
                    && *hook == hook::BPF_SK_LOOKUP as u32
            }
            // The number of a control group is that of its directory; one that is gone is shown as zero.
            Attachment::Cgroup { cgroup, hook } => {
                Some(*cgroup) == self.cgroup && Some(*hook) == cgroup_hook(program)
            }
            Attachment::Tracepoint { name } => tracepoint_of(program) == Some(name),
            Attachment::Other => false,
        }
    }
}

/// Whether a program of a control group that is called so, and asked about this (`enum bpf_attach_type`), is one of an agent's.
pub fn is_of_an_agent(name: &str, hook: u32) -> bool {
    /// The kernel keeps so many bytes of a name (`BPF_OBJ_NAME_LEN`).
    const KEPT: usize = 15;
    let mut ours = ATTACHED.iter().chain(&COMFORTS);
    ours.any(|it| cgroup_hook(it) == Some(hook) && it.get(..KEPT).unwrap_or(it) == name)
}

/// What a program of a control group is asked about.
fn cgroup_hook(program: &str) -> Option<u32> {
    let hook = match program {
        "share_bind4" => hook::BPF_CGROUP_INET4_BIND,
        "share_bind6" => hook::BPF_CGROUP_INET6_BIND,
        "refuse_multipath" => hook::BPF_CGROUP_INET_SOCK_CREATE,
        "public_port4" => hook::BPF_CGROUP_INET4_GETSOCKNAME,
        "public_port6" => hook::BPF_CGROUP_INET6_GETSOCKNAME,
        _ => return None,
    };
    Some(hook as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { network_namespace: 7, cgroup: Some(9) };

    #[test]
    fn a_program_is_in_its_place_only_where_it_does_its_work() {
        let network = |namespace| Attachment::Network { namespace, hook: 36 };
        assert!(PLACE.is_of(STEER, &network(7)));
        assert!(!PLACE.is_of(STEER, &network(8)), "another namespace");
        assert!(!PLACE.is_of(STEER, &network(0)), "a namespace that is gone");
        assert!(!PLACE.is_of("share_bind4", &network(7)));
        let group = |cgroup, hook| Attachment::Cgroup { cgroup, hook };
        assert!(PLACE.is_of("share_bind4", &group(9, 8)));
        assert!(!PLACE.is_of("share_bind4", &group(9, 9)), "that is for IPv6");
        assert!(!PLACE.is_of("share_bind6", &group(8, 9)), "another group");
        assert!(!PLACE.is_of(STEER, &group(9, 8)));
        let nowhere = Place { cgroup: None, ..PLACE };
        assert!(!nowhere.is_of("share_bind4", &group(0, 8)), "a group that is gone");
        let tracepoint = |name: &str| Attachment::Tracepoint { name: name.to_owned() };
        assert!(PLACE.is_of("follow_fork", &tracepoint("sched_process_fork")));
        assert!(!PLACE.is_of("follow_exit", &tracepoint("sched_process_fork")));
        assert!(!PLACE.is_of("share_bind4", &tracepoint("inet_sock_set_state")));
        assert!(!PLACE.is_of(STEER, &Attachment::Other));
    }

    #[test]
    fn an_agents_programs_are_known_by_the_names_that_the_kernel_keeps() {
        assert!(is_of_an_agent("share_bind4", 8) && is_of_an_agent("refuse_multipat", 2));
        assert!(!is_of_an_agent("share_bind4", 9) && !is_of_an_agent("refuse_multipath", 2));
        assert!(!is_of_an_agent("sd_devices", 6) && !is_of_an_agent("", 8));
    }

    #[test]
    fn every_program_that_is_pinned_has_a_place() {
        for program in ATTACHED.into_iter().chain(COMFORTS) {
            let has_one = program == STEER
                || cgroup_hook(program).is_some()
                || tracepoint_of(program).is_some();
            assert!(has_one, "{program}");
        }
    }
}
