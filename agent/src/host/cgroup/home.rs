//! The way back to a group that may be gone.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Cgroup, CgroupError, Hierarchy};

impl Hierarchy {
    /// The group `path`, or the nearest one above it that is there.
    pub fn nearest(&self, path: &Path) -> Cgroup {
        let there = path.ancestors().find_map(|it| self.open(it).ok());
        there.unwrap_or_else(|| self.root())
    }

    /// Moves all processes of a group to the group `path`. Whoever may remove that one may not have them out of the groups above it,
    /// which confine them too: they come to the nearest one that is there. Returns where they are.
    ///
    /// # Kernel
    ///
    /// A group that passes controllers on takes no processes (`EBUSY`, `cgroup_migrate_vet_dst`): then it gets a group below it anew,
    /// by the name that is gone, or, if none is, that of the group itself.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn return_to(&self, path: &Path, group: &Cgroup) -> Result<Cgroup, CgroupError> {
        let mut last = None;
        for _again in 0..AGAIN {
            let home = self.nearest(path);
            let answer = match group.move_all_to(&home) {
                Err(error) if is(&error, &[Errno::BUSY]) => self
                    .create(&below(&home, path, group))
                    .and_then(|made| group.move_all_to(&made).map(|()| made)),
                answer => answer.map(|()| home),
            };
            match answer {
                // Somebody has removed it meanwhile.
                Err(error) if is(&error, &[Errno::NOENT, Errno::NODEV]) => last = Some(error),
                answer => return answer,
            }
        }
        Err(last.unwrap_or_else(|| CgroupError::NeverEmpty { path: group.directory.clone() }))
    }
}

/// The next group on the way from one to `path`; where that ends, one that is called as `group`.
fn below(home: &Cgroup, path: &Path, group: &Cgroup) -> PathBuf {
    let next = path.strip_prefix(&home.directory).ok().and_then(|it| it.iter().next());
    home.directory.join(next.or_else(|| group.directory.file_name()).unwrap_or_default())
}

fn is(error: &CgroupError, numbers: &[Errno]) -> bool {
    let CgroupError::Failed { source, .. } = error else { return false };
    Errno::from_io_error(source).is_some_and(|it| numbers.contains(&it))
}

/// How often a group may be removed while processes are on their way to it.
const AGAIN: u32 = 10;

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;
    use crate::host::process::Pid;

    #[test]
    fn processes_of_a_group_that_is_gone_stay_below_the_one_above_it() {
        let made = Hierarchy::find().and_then(|hierarchy| {
            let path = format!("agent-test-{}-home", std::process::id());
            Ok((hierarchy.create(path.as_ref())?, hierarchy))
        });
        let Ok((top, hierarchy)) = made else { return };
        let [from, to] = ["from", "to/inner"].map(|it| hierarchy.create(&top.directory.join(it)));
        let (from, to) = (from.unwrap(), to.unwrap());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::new(child.id().try_into().unwrap()).unwrap();
        let returned = |path: &Path| {
            let home = hierarchy.return_to(path, &from).unwrap();
            assert_eq!(hierarchy.of(pid).unwrap(), home);
            home.directory
        };
        from.adopt(pid).unwrap();
        assert_eq!(returned(&to.directory), to.directory);
        from.adopt(pid).unwrap();
        let middle = to.directory.parent().unwrap();
        fs::remove_dir(&to.directory).unwrap();
        assert_eq!(returned(&to.directory), middle);
        // Passing on is what keeps a group from having processes, where there is something to pass on.
        from.adopt(pid).unwrap();
        let controllers = fs::read_to_string(top.directory.join("cgroup.controllers")).unwrap();
        if let Some(first) = controllers.split_ascii_whitespace().next() {
            for group in [&top.directory, middle] {
                fs::write(group.join("cgroup.subtree_control"), format!("+{first}")).unwrap();
            }
            assert_eq!(returned(&to.directory.join("deeper")), to.directory);
            from.adopt(pid).unwrap();
            assert_eq!(returned(middle), middle.join("from"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        top.remove().unwrap();
    }
}
