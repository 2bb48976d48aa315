//! Control groups (version 2): the bag that holds all processes of a generation, whatever they
//! fork.
//!
//! The kernel tells when a group has become empty, kills all of it at once, and lets BPF programs
//! know a process's group: none of this can be had from process numbers without races.

mod confining;
mod error;
pub(super) mod hierarchy;
mod home;
mod limits;
mod programs;
mod watch;

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{io::Errno, process::Signal};

use super::process::{Pid, Process, ProcessError};

pub use confining::Confining;
pub use error::CgroupError;
pub use hierarchy::{Hierarchy, meant_here};
pub use limits::Limits;
pub use programs::{Program, Refused, without};
pub use watch::PopulatedWatch;

/// One control group. Dropping it leaves the group in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cgroup {
    directory: PathBuf,
    level: u32,
}

impl Cgroup {
    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How deep it is below the mount's root, which is 0.
    ///
    /// # Kernel
    ///
    /// `bpf_get_current_ancestor_cgroup_id` counts from the root of all. That is the same, unless
    /// we run in a cgroup namespace of our own.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The number that BPF programs see.
    ///
    /// # Kernel
    ///
    /// `cgroup_id` is the inode number of the directory (`kernfs_ino`) wherever inode numbers have
    /// 64 bits.
    ///
    /// # Errors
    ///
    /// When the group does not exist (any more).
    pub fn id(&self) -> Result<u64, CgroupError> {
        let directory = fs::metadata(&self.directory)
            .map_err(|source| self.failed("read the number of", source))?;
        if !directory.is_dir() {
            return Err(self.failed("use", Errno::NOTDIR.into()));
        }
        Ok(directory.ino())
    }

    /// Refuses a group that no process can join.
    ///
    /// # Kernel
    ///
    /// A group below one for threads is for threads too, or for nothing (`domain invalid`, `cgroup_is_valid_domain`). The root
    /// has no such file.
    ///
    /// # Errors
    ///
    /// When it is one.
    pub fn refuse_threads(&self) -> Result<(), CgroupError> {
        let kind = fs::read_to_string(self.directory.join("cgroup.type")).unwrap_or_default();
        match kind.trim() {
            kind @ ("threaded" | "domain invalid") => {
                Err(CgroupError::Threaded { path: self.directory.clone(), kind: kind.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// All processes in the group and in those below it, that our PID namespace can name.
    ///
    /// # Errors
    ///
    /// When the group does not exist.
    pub fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut pids = HashSet::new();
        for group in self.with_descendants()? {
            match fs::read_to_string(group.join("cgroup.procs")) {
                Ok(list) => pids
                    .extend(list.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::new)),
                // Gone meanwhile, or made of threads, whose processes a group above lists.
                Err(error) if group != self.directory && is_benign(&error) => {}
                Err(source) => return Err(self.failed("list the processes of", source)),
            }
        }
        let mut pids: Vec<Pid> = pids.into_iter().collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// Whether a live process is in the group or below it.
    ///
    /// # Errors
    ///
    /// When the group does not exist, or is the root, which never is without.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        self.watch_populated()?.is_populated()
    }

    /// Watches for the group to become empty, or to get its first process.
    ///
    /// # Errors
    ///
    /// When the group does not exist.
    pub fn watch_populated(&self) -> Result<PopulatedWatch, CgroupError> {
        PopulatedWatch::open(&self.directory)
    }

    /// Kills all processes of the group and below it, without one escaping by a fork.
    ///
    /// # Kernel
    ///
    /// Before Linux 5.14 there is no `cgroup.kill`: then each is signalled, until none is left or
    /// many rounds have gone by.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match fs::write(self.directory.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.directory.exists() => {
                self.kill_each()
            }
            answer => answer.map_err(|source| self.failed("kill", source)),
        }
    }

    fn kill_each(&self) -> Result<(), CgroupError> {
        for _round in 0..ROUNDS {
            let pids = self.pids()?;
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                match Process::open(pid).and_then(|process| process.signal(Signal::KILL)) {
                    Ok(()) | Err(ProcessError::Gone { .. }) => {}
                    Err(source) => {
                        return Err(CgroupError::Signal { path: self.directory.clone(), source });
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves a process, with all its threads, into the group.
    ///
    /// # Errors
    ///
    /// When the process is gone (`ESRCH`) or the kernel refuses.
    pub fn adopt(&self, pid: Pid) -> Result<(), CgroupError> {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string())
            .map_err(|source| self.failed("move a process into", source))
    }

    /// Moves all processes, also those of groups below, into another group; again until none is
    /// left, since they fork.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or processes are made faster than they are moved.
    pub fn move_all_to(&self, other: &Self) -> Result<(), CgroupError> {
        for _round in 0..ROUNDS {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            let mut moved = false;
            for pid in pids {
                match other.adopt(pid) {
                    Err(CgroupError::Failed { source, .. })
                        if source.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
                    answer => {
                        answer?;
                        moved = true;
                    }
                }
            }
            // Those that are about to end leave it by themselves, and nobody else can have them leave it.
            if !moved && self.watch_populated()?.is_empty_within(ENDING)? {
                return Ok(());
            }
        }
        Err(CgroupError::NeverEmpty { path: self.directory.clone() })
    }

    /// Removes the group and those below it. Already gone is fine.
    ///
    /// # Errors
    ///
    /// `EBUSY` while a process is in one of them.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let groups = match self.with_descendants() {
            Err(CgroupError::Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            answer => answer?,
        };
        for directory in groups.iter().rev() {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CgroupError::Failed {
                        operation: "remove",
                        path: directory.clone(),
                        source: error,
                    });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Removes the group if nothing is in it: no process, and no group below it. Already gone is fine.
    ///
    /// # Errors
    ///
    /// When the kernel refuses for another reason.
    pub fn remove_unless_used(&self) -> Result<(), CgroupError> {
        use io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy};
        let fine = [DirectoryNotEmpty, NotFound, ResourceBusy];
        match fs::remove_dir(&self.directory) {
            Err(error) if !fine.contains(&error.kind()) => Err(self.failed("remove", error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The directories of the group and of all below it, parents first.
    fn with_descendants(&self) -> Result<Vec<PathBuf>, CgroupError> {
        let mut groups = vec![self.directory.clone()];
        let mut next = 0;
        while let Some(directory) = groups.get(next).cloned() {
            match fs::read_dir(&directory) {
                Ok(entries) => {
                    let groups_below =
                        |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
                    groups.extend(entries.flatten().filter(groups_below).map(|entry| entry.path()));
                }
                Err(error) if next > 0 && is_benign(&error) => {}
                Err(source) => return Err(self.failed("list", source)),
            }
            next += 1;
        }
        Ok(groups)
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> CgroupError {
        CgroupError::Failed { operation, path: self.directory.clone(), source }
    }
}

/// Of a group below: removed meanwhile (`ENODEV` for a file that was open), or one of threads
/// (`EOPNOTSUPP`).
fn is_benign(error: &io::Error) -> bool {
    Errno::from_io_error(error)
        .is_some_and(|number| [Errno::NOENT, Errno::NODEV, Errno::OPNOTSUPP].contains(&number))
}

/// How often a list of processes is worked off before we call it a fork bomb.
const ROUNDS: u32 = 100;

/// How long a process that ends may stay in its group before the others are looked at again.
const ENDING: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Command, Stdio},
        time::Duration,
    };

    use rustix::event::PollFlags;

    use super::*;
    use crate::host::process::readable_within;

    /// A group of this test's own, removed with all that runs in it; nothing where there are none
    /// to be had.
    struct TestGroup(Cgroup, Hierarchy);

    impl TestGroup {
        fn new(name: &str) -> Option<Self> {
            let made = Hierarchy::find().and_then(|hierarchy| {
                let path = PathBuf::from(format!("agent-test-{}-{name}", std::process::id()));
                Ok(Self(hierarchy.create(&path)?, hierarchy))
            });
            made.inspect_err(|error| eprintln!("skipped: cannot make a control group: {error:?}"))
                .ok()
        }
    }

    impl Drop for TestGroup {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            let empty =
                self.0.watch_populated().unwrap().is_empty_within(Duration::from_secs(10)).unwrap();
            assert!(empty, "the group still has processes");
            self.0.remove().unwrap();
        }
    }

    fn sleeper() -> (Child, Pid) {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::new(child.id().try_into().unwrap()).unwrap();
        (child, pid)
    }

    #[test]
    fn a_group_is_filled_watched_moved_killed_and_removed() {
        let Some(TestGroup(group, hierarchy)) = &TestGroup::new("life") else { return };
        assert!(!group.is_populated().unwrap());
        assert_eq!(group.level(), 1);
        assert_eq!(group.id().unwrap(), fs::metadata(group.directory()).unwrap().ino());
        let path = Path::new(group.directory().file_name().unwrap()).join("below");
        let below = hierarchy.create(&path).unwrap();
        assert_eq!(below.level(), 2);

        let watch = group.watch_populated().unwrap();
        let (mut child, pid) = sleeper();
        below.adopt(pid).unwrap();
        assert!(
            readable_within(&watch, PollFlags::PRI, Duration::from_secs(10)).unwrap(),
            "a change is reported"
        );
        assert!(watch.is_populated().unwrap());
        assert!(!watch.is_empty_within(Duration::ZERO).unwrap());
        assert_eq!(group.pids().unwrap(), [pid]);
        assert_eq!(hierarchy.of(pid).unwrap(), below);

        below.move_all_to(group).unwrap();
        assert_eq!(hierarchy.of(pid).unwrap(), *group);
        assert_eq!(below.pids().unwrap(), []);
        group.kill().unwrap();
        assert!(watch.is_empty_within(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
    }

    #[test]
    fn without_cgroup_kill_each_process_is_signalled() {
        let Some(TestGroup(group, _)) = &TestGroup::new("each") else { return };
        let mut children = [sleeper(), sleeper()];
        for (_, pid) in &children {
            group.adopt(*pid).unwrap();
        }
        group.kill_each().unwrap();
        for (child, _) in &mut children {
            assert!(!child.wait().unwrap().success());
        }
    }

    #[test]
    fn a_group_with_processes_is_not_removed_and_a_missing_one_is_no_error() {
        let Some(TestGroup(group, hierarchy)) = &TestGroup::new("busy") else { return };
        let (mut child, pid) = sleeper();
        group.adopt(pid).unwrap();
        assert!(matches!(group.remove(), Err(CgroupError::Failed { operation: "remove", .. })));
        group.kill().unwrap();
        child.wait().unwrap();
        let path = Path::new(group.directory().file_name().unwrap()).join("below");
        let below = hierarchy.create(&path).unwrap();
        below.remove().unwrap();
        below.remove().unwrap();
        assert!(hierarchy.open(&path).is_err());
    }
}
