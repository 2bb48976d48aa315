//! Why something about a control group could not be done.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use thiserror::Error;

use super::{Hierarchy, ROUNDS};
use crate::host::{
    mounts,
    process::{Pid, ProcessError},
};

/// Why something about a control group could not be done.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The operator can mount it: `mount -t cgroup2 none /sys/fs/cgroup`.
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    /// Whether one is mounted is unknown.
    #[error("read the mount table")]
    MountTable(#[source] io::Error),
    /// The group exists, but not below the mount that we see.
    #[error("control group `{path}` is outside the mounted tree")]
    Outside {
        /// The path that leads out.
        path: PathBuf,
    },
    /// A process is in a group that the mount that we see does not show.
    #[error(
        "the control group `{path}` of process {pid} is not in the part of the tree that is mounted at `{mounted}`"
    )]
    Unseen {
        /// The process.
        pid: Pid,
        /// Its group, as our control group namespace calls it.
        path: PathBuf,
        /// Where we see a part of the tree.
        mounted: PathBuf,
    },
    /// A group for threads, which no process can join.
    #[error(
        "no process can join control group `{path}`: it is in a group for threads (`cgroup.type` is `{kind}`)"
    )]
    Threaded {
        /// The group's directory.
        path: PathBuf,
        /// What the kernel calls it.
        kind: String,
    },
    /// A place in the file system where no control groups are.
    #[error("`{path}` is no place for a control group: version 2 is mounted at `{mounted}`")]
    Elsewhere {
        /// The place.
        path: PathBuf,
        /// Where control groups are.
        mounted: PathBuf,
    },
    /// The system said no.
    #[error("{operation} control group `{path}`")]
    Failed {
        /// What was attempted.
        operation: &'static str,
        /// On which group or file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A process of the group could not be killed.
    #[error("kill the processes of control group `{path}`")]
    Signal {
        /// The group's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// Its processes forked faster than they were moved.
    #[error(
        "control group `{path}` still has processes after `{ROUNDS}` rounds of moving them out"
    )]
    NeverEmpty {
        /// The group's directory.
        path: PathBuf,
    },
}

impl CgroupError {
    /// What to do about it, where that is known.
    pub fn fix(&self) -> Option<String> {
        let (path, source) = match self {
            Self::NotMounted => return Some(format!("mount it: `{}`", Hierarchy::how_to_mount())),
            Self::Elsewhere { mounted, .. } => {
                let mounted = mounted.display();
                return Some(format!(
                    "name one below `{mounted}`, as `{mounted}/agent` (`--cgroup`)"
                ));
            }
            Self::Unseen { path, mounted, .. } => return Some(how_to_see(path, mounted)),
            Self::Threaded { .. } => {
                return Some(format!("{ANOTHER}, which is not below that one"));
            }
            Self::Failed { path, source, .. } => (path, source),
            Self::MountTable(_)
            | Self::Outside { .. }
            | Self::Signal { .. }
            | Self::NeverEmpty { .. } => {
                return None;
            }
        };
        match Errno::from_io_error(source) {
            Some(Errno::ROFS) => Some(format!(
                "make that file system writable: {}; in a container, give it control groups of its own that it may write",
                mounts::remount(path)
            )),
            // `cgroup_check_hierarchy_limits`
            Some(Errno::AGAIN) => Some(match full(path) {
                Some(limit) => {
                    format!("`echo max > {}`, or name another group (`--cgroup`)", limit.display())
                }
                None => "raise `cgroup.max.descendants` and `cgroup.max.depth` of the groups above"
                    .to_owned(),
            }),
            Some(Errno::NAMETOOLONG) => Some("name a shorter one (`--cgroup`)".to_owned()),
            Some(Errno::PERM | Errno::ACCESS) => {
                Some("let root make control groups there".to_owned())
            }
            Some(Errno::NOTDIR | Errno::EXIST | Errno::INVAL) => Some(ANOTHER.to_owned()),
            _ => None,
        }
    }
}

const ANOTHER: &str = "name another group (`--cgroup`)";

/// The kernel calls groups above a namespace's own by names that lead up (`cgroup_show_path`).
fn how_to_see(path: &Path, mounted: &Path) -> String {
    if path.starts_with("/..") {
        return String::from(
            "let the agent see the machine's control groups: start its container with `--cgroupns=host`; elsewhere put `nsenter \
             --target 1 --cgroup` before `agent`",
        );
    }
    format!("mount all of it: `mount -t cgroup2 cgroup2 {}`", mounted.display())
}

/// The limit of a group above that allows no more groups below it, or none as deep: the one with the least room, for what filled it may
/// have been removed since.
fn full(path: &Path) -> Option<PathBuf> {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let below = |group: &Path| {
        let stat = fs::read_to_string(group.join("cgroup.stat")).ok()?;
        number(stat.lines().find_map(|line| line.strip_prefix("nr_descendants "))?)
    };
    let groups = path.ancestors().zip(0_usize..).skip(1);
    let limits = groups.flat_map(|(group, depth)| {
        [("cgroup.max.descendants", below(group)), ("cgroup.max.depth", Some(depth - 1))]
            .map(|(name, used)| (group.join(name), used))
    });
    let room = limits.filter_map(|(limit, used)| {
        let most = number(&fs::read_to_string(&limit).ok()?)?;
        Some((most.saturating_sub(used?), limit))
    });
    room.min_by_key(|(left, _)| *left).map(|(_, limit)| limit)
}
