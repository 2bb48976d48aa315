//! What the kernel can do, as the datapath's rehearsal found it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process,
};

use super::Check;
use crate::{
    datapath::probe::{self, Feature, Outcome, WITHOUT_COMFORTS},
    host::{cgroup::Hierarchy, sock_diag},
    places::Places,
};

/// Whether a check is of something that the agent works without.
pub(super) fn is_of_comfort(check: &Check) -> bool {
    Feature::ALL.iter().any(|feature| feature.is_comfort() && feature.to_string() == check.name)
}

/// The rehearsal, and the socket diagnosis that reads the storage it makes.
pub(super) fn checks(places: &Places) -> Vec<Check> {
    let group = EmptyGroup::create(places);
    let directory = match &group {
        Ok(group) => File::open(&group.path).map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    let mut diagnosis = None;
    let outcomes = probe::rehearse(directory.as_ref().map_err(String::as_str), |tags| {
        // Any port: the kernel looks at the storage map first.
        diagnosis = Some(sock_diag::connections(&[1], Some(tags)).map(drop));
    });
    let mut checks: Vec<Check> =
        outcomes.into_iter().map(|(feature, outcome)| check(feature, outcome)).collect();
    checks.push(socket_diagnosis(diagnosis));
    checks
}

fn check(feature: Feature, outcome: Outcome) -> Check {
    let name = feature.to_string();
    match outcome {
        Outcome::Works => Check::ok(name, shown_by(feature)),
        // Only the rehearsal needs them.
        Outcome::Refused(why) if feature == Feature::Seclusion => Check::unknown(name, why),
        Outcome::Refused(why) if feature.is_comfort() => {
            let fix = Some(needed_for(feature).to_owned());
            let detail = format!("done without, so that {WITHOUT_COMFORTS}: {why}");
            Check { fix, ..Check::unknown(name, detail) }
        }
        Outcome::Refused(why) => Check::missing(name, why, needed_for(feature)),
        Outcome::Untried(why) => Check::unknown(name, format!("not tried: {why}")),
    }
}

const fn shown_by(feature: Feature) -> &'static str {
    match feature {
        Feature::Seclusion => "what follows was tried where nobody else sees it",
        Feature::FileSystem => "a BPF file system was mounted, and maps and links were pinned",
        Feature::Types => "read from /sys/kernel/btf/vmlinux",
        Feature::SocketMap | Feature::RingBuffer | Feature::TableMaps => "created",
        Feature::InheritedStorage => "created, with BPF_F_CLONE",
        Feature::Steer => "loaded and attached (sk_lookup)",
        Feature::ShareBind4 => "loaded and attached (cgroup/bind4)",
        Feature::ShareBind6 => "loaded and attached (cgroup/bind6)",
        Feature::RefuseMultipath => "loaded and attached (cgroup/sock_create)",
        Feature::PublicPort4 => "loaded and attached (cgroup/getsockname4)",
        Feature::PublicPort6 => "loaded and attached (cgroup/getsockname6)",
        Feature::TrackFlows => "loaded and attached (tp_btf/inet_sock_set_state)",
        Feature::FollowFork => "loaded and attached (tp_btf/sched_process_fork)",
        Feature::FollowExit => "loaded and attached (tp_btf/sched_process_exit)",
        Feature::Enlist => "loaded (iter/task)",
        Feature::AdoptListeners => "loaded (iter/tcp)",
        Feature::AdoptFlow => "loaded",
        Feature::Migrate => "loaded (sk_reuseport/migrate)",
        Feature::TakeOver => "a listener was tagged, its port shared, and it can be assigned",
        Feature::Report => "the end of that listener was reported at once",
    }
}

const fn needed_for(feature: Feature) -> &'static str {
    match feature {
        Feature::Seclusion => "run as root, outside of a container that refuses namespaces",
        Feature::FileSystem => "run as root of the machine, on a kernel with CONFIG_BPF_SYSCALL=y",
        Feature::Types => "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        Feature::SocketMap => "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_INET=y",
        Feature::InheritedStorage | Feature::RingBuffer | Feature::TableMaps => {
            "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_NET=y, and see `sysctl kernel.unprivileged_bpf_disabled`"
        }
        Feature::Steer => {
            "boot a kernel with sk_lookup programs (Linux 5.9 or later with CONFIG_NET=y)"
        }
        Feature::ShareBind4 | Feature::ShareBind6 | Feature::RefuseMultipath => {
            "boot a kernel with CONFIG_CGROUP_BPF=y; where another program holds the control group alone, give the agent one \
             elsewhere with --cgroup"
        }
        Feature::PublicPort4 | Feature::PublicPort6 => {
            "boot a kernel with CONFIG_CGROUP_BPF=y (Linux 5.8 or later)"
        }
        Feature::TrackFlows | Feature::FollowFork | Feature::FollowExit | Feature::Enlist => {
            "boot a kernel with CONFIG_BPF_EVENTS=y and CONFIG_DEBUG_INFO_BTF=y"
        }
        Feature::AdoptListeners | Feature::TakeOver => {
            "boot a kernel whose socket iterators may set options (Linux 5.16 or later)"
        }
        Feature::AdoptFlow => {
            "boot a kernel with CONFIG_NET=y that runs programs on request (Linux 4.20 or later)"
        }
        Feature::Migrate => {
            "boot a kernel whose reuseport programs may move connections (Linux 5.14 or later)"
        }
        Feature::Report => "report this together with `uname -r`",
    }
}

fn socket_diagnosis(diagnosis: Option<Result<(), sock_diag::SockDiagError>>) -> Check {
    let name = "socket diagnosis";
    match diagnosis {
        Some(Ok(())) => Check::ok(name, "sockets can be listed with their storage"),
        Some(Err(error)) => Check::missing(
            name,
            super::host::all_causes(&error),
            "`modprobe -a inet_diag tcp_diag`, or boot a kernel with CONFIG_INET_DIAG=y and CONFIG_INET_TCP_DIAG=y",
        ),
        None => Check::unknown(name, "not tried: there is no storage to list"),
    }
}

/// A control group without processes, beside the agent's own: what refuses our programs there refuses them here.
struct EmptyGroup {
    path: PathBuf,
}

impl EmptyGroup {
    fn create(places: &Places) -> Result<Self, String> {
        let hierarchy = Hierarchy::find().map_err(|error| super::host::all_causes(&error))?;
        let agents = places.cgroup.as_deref().unwrap_or_else(|| Path::new(Places::CGROUP));
        let beside = agents.ancestors().skip(1).find_map(|above| hierarchy.open(above).ok());
        let beside = beside.unwrap_or_else(|| hierarchy.root());
        let path = beside.directory().join(format!("agent-doctor-{}", process::id()));
        fs::create_dir(&path)
            .map_err(|error| format!("create the control group `{}`: {error}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for EmptyGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an empty control group is left behind");
        }
    }
}
