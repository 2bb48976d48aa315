//! What works where: each feature with how it is tried, what it takes, and what is lost without it. `agent doctor` speaks from
//! this table, the agent goes by it, and docs/kernels.md shows it.

use std::fmt::Write as _;

use super::feature::Feature;
use crate::datapath::programs::WITHOUT_COMFORTS;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// In a few words.
    pub name: &'static str,
    /// What was done with it, where it works.
    pub shown_by: &'static str,
    /// What has it.
    pub takes: Takes,
    /// What is lost where it does not work.
    pub without: Without,
}

/// What has a feature.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// A kernel of this version or later, built with these options.
    Kernel {
        /// The first two numbers of a release, and the same in words.
        since: (u32, u32),
        /// How its version is written.
        version: &'static str,
        /// Of its configuration.
        options: &'static str,
    },
    /// What somebody has to do, whatever the kernel.
    Else(&'static str),
}

/// What becomes of the agent without a feature.
#[derive(Clone, Copy, Debug)]
pub enum Without {
    /// It refuses to start.
    Refused,
    /// It does without, and this is lost.
    Less(&'static str),
    /// Only the rehearsal has a use for it.
    Open,
}

const BPF: &str = "CONFIG_BPF_SYSCALL=y and CONFIG_NET=y";
const GROUPS: &str = "CONFIG_CGROUP_BPF=y";
const TRACING: &str = "CONFIG_BPF_EVENTS=y and CONFIG_DEBUG_INFO_BTF=y";

const fn kernel(since: (u32, u32), version: &'static str, options: &'static str) -> Takes {
    Takes::Kernel { since, version, options }
}

const fn needed(name: &'static str, shown_by: &'static str, takes: Takes) -> About {
    About { name, shown_by, takes, without: Without::Refused }
}

const fn comfort(name: &'static str, shown_by: &'static str, takes: Takes) -> About {
    About { name, shown_by, takes, without: Without::Less(WITHOUT_COMFORTS) }
}

/// Each row beside what it is about, in their order.
const TABLE: [(Feature, About); Feature::ALL.len()] = [
    (
        Feature::Seclusion,
        About {
            name: "private namespaces",
            shown_by: "what follows was tried where nobody else sees it",
            takes: Takes::Else("let it make namespaces and mounts; the agent itself needs neither"),
            without: Without::Open,
        },
    ),
    (
        Feature::FileSystem,
        needed(
            "pinning",
            "a BPF file system was mounted, and maps and links were pinned",
            Takes::Else("run as root of the machine, on a kernel with CONFIG_BPF_SYSCALL=y"),
        ),
    ),
    (
        Feature::Types,
        needed(
            "kernel types (BTF)",
            "read from /sys/kernel/btf/vmlinux",
            kernel((5, 4), "5.4", "CONFIG_DEBUG_INFO_BTF=y"),
        ),
    ),
    (
        Feature::SocketMap,
        needed(
            "socket map",
            "created",
            kernel((5, 8), "5.8", "CONFIG_BPF_SYSCALL=y and CONFIG_INET=y"),
        ),
    ),
    (
        Feature::InheritedStorage,
        needed("inherited socket storage", "created, with BPF_F_CLONE", kernel((5, 4), "5.4", BPF)),
    ),
    (Feature::RingBuffer, needed("ring buffer", "created", kernel((5, 8), "5.8", BPF))),
    (Feature::TableMaps, needed("tables", "created", kernel((4, 10), "4.10", BPF))),
    (
        Feature::Steer,
        needed(
            "program steer",
            "loaded and attached (sk_lookup)",
            kernel((5, 17), "5.17", "CONFIG_NET=y"),
        ),
    ),
    (
        Feature::ShareBind4,
        needed(
            "program share_bind (IPv4)",
            "loaded and attached (cgroup/bind4)",
            kernel((6, 1), "6.1", GROUPS),
        ),
    ),
    (
        Feature::ShareBind6,
        needed(
            "program share_bind (IPv6)",
            "loaded and attached (cgroup/bind6)",
            kernel((6, 1), "6.1", GROUPS),
        ),
    ),
    (
        Feature::RefuseMultipath,
        needed(
            "program refuse_multipath",
            "loaded and attached (cgroup/sock_create)",
            kernel((5, 18), "5.18", GROUPS),
        ),
    ),
    (
        Feature::PublicPort4,
        comfort(
            "program public_port (IPv4)",
            "loaded and attached (cgroup/getsockname4)",
            kernel((5, 8), "5.8", GROUPS),
        ),
    ),
    (
        Feature::PublicPort6,
        comfort(
            "program public_port (IPv6)",
            "loaded and attached (cgroup/getsockname6)",
            kernel((5, 8), "5.8", GROUPS),
        ),
    ),
    (
        Feature::TrackFlows,
        needed(
            "program track_flows",
            "loaded and attached (tp_btf/inet_sock_set_state)",
            kernel((6, 1), "6.1", TRACING),
        ),
    ),
    (
        Feature::FollowFork,
        needed(
            "program follow_fork",
            "loaded and attached (tp_btf/sched_process_fork)",
            kernel((6, 1), "6.1", TRACING),
        ),
    ),
    (
        Feature::FollowExit,
        needed(
            "program follow_exit",
            "loaded and attached (tp_btf/sched_process_exit)",
            kernel((6, 1), "6.1", TRACING),
        ),
    ),
    (
        Feature::Enlist,
        needed("program enlist", "loaded (iter/task)", kernel((6, 1), "6.1", TRACING)),
    ),
    (
        Feature::ListProcesses,
        needed("program list_processes", "loaded (iter/task)", kernel((6, 1), "6.1", TRACING)),
    ),
    (
        Feature::ListSockets,
        needed("program list_sockets", "loaded (iter/task_file)", kernel((6, 1), "6.1", TRACING)),
    ),
    (
        Feature::AdoptListeners,
        needed("program adopt_listeners", "loaded (iter/tcp)", kernel((6, 1), "6.1", TRACING)),
    ),
    (Feature::AdoptFlow, needed("program adopt_flow", "loaded", kernel((5, 11), "5.11", BPF))),
    (
        Feature::Migrate,
        needed(
            "program migrate",
            "loaded (sk_reuseport/migrate)",
            kernel((5, 17), "5.17", "CONFIG_NET=y"),
        ),
    ),
    (
        Feature::TakeOver,
        needed(
            "taking a listener over",
            "a listener was tagged, its port shared, and it can be assigned",
            kernel((6, 5), "6.5, or 6.1.42 of the 6.1 series,", TRACING),
        ),
    ),
    (
        Feature::Report,
        needed(
            "kernel reports",
            "the end of that listener was reported at once",
            Takes::Else("report this together with `uname -r`"),
        ),
    ),
];

impl About {
    /// The row of a feature.
    pub const fn of(feature: Feature) -> Self {
        TABLE[feature as usize].1
    }

    /// What to do where it does not work, on a kernel of this release.
    pub fn fix(&self, release: &str) -> String {
        let (since, version, options) = match self.takes {
            Takes::Kernel { since, version, options } => (since, version, options),
            Takes::Else(what) => return what.to_owned(),
        };
        match numbers(release) {
            Some(here) if here >= since => format!(
                "boot a kernel with {options}: Linux {release} is new enough. Or whatever refuses it has to let it pass: a container's \
                 filter of system calls, a security module"
            ),
            _ => format!("boot Linux {version} or later with {options}: this is {release}"),
        }
    }
}

/// The first two numbers of a release, which may have no third one (`7.3-rc7`).
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|it: char| !it.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The table in Markdown.
pub fn table() -> String {
    let mut table =
        "| what | since Linux | with | without it |\n| --- | --- | --- | --- |\n".to_owned();
    for feature in Feature::ALL {
        let about = About::of(feature);
        let (version, options) = match about.takes {
            Takes::Kernel { version, options, .. } => (version.trim_end_matches(','), options),
            Takes::Else(what) => ("–", what),
        };
        let without = match about.without {
            Without::Refused => "the agent refuses to start".to_owned(),
            Without::Less(loss) => format!("the agent works, but {loss}"),
            Without::Open => {
                "`agent doctor` tries all of it where the agent would do it".to_owned()
            }
        };
        let written = writeln!(table, "| {} | {version} | {options} | {without} |", about.name);
        written.expect("a string takes all");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::programs::{ATTACHED, COMFORTS, ON_DEMAND};

    #[test]
    fn each_row_is_where_it_is_looked_for() {
        assert_eq!(TABLE.map(|(feature, _)| feature), Feature::ALL);
        assert!((0..).zip(TABLE).all(|(row, (feature, _))| feature as usize == row));
    }

    #[test]
    fn what_the_agent_does_without_is_what_the_table_says() {
        for program in COMFORTS {
            assert!(Feature::of_program(program).is_comfort(), "{program}");
        }
        for program in ATTACHED.into_iter().chain(ON_DEMAND) {
            assert!(!Feature::of_program(program).is_comfort(), "{program}");
        }
    }

    #[test]
    fn the_fix_fits_the_machine() {
        let steer = About::of(Feature::Steer);
        assert!(steer.fix("5.4.0-42-generic").starts_with("boot Linux 5.17 or later"));
        assert!(steer.fix("7.3-rc7-amd64").starts_with("boot a kernel with CONFIG_NET=y"));
        assert!(steer.fix("unknown").contains("this is unknown"));
        assert_eq!(numbers("6.1.0-44-amd64"), Some((6, 1)));
    }

    #[test]
    fn the_documentation_shows_the_table() {
        let shown = include_str!("../../../../docs/kernels.md");
        assert!(shown.contains(&table()), "put this into docs/kernels.md:\n{}", table());
    }
}
