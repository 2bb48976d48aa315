//! The control groups of an agent, below one that agents of other network namespaces may use too.
//!
//! | name | holds |
//! | --- | --- |
//! | `NAME.N@INODE` | generation N of a service of the agent that serves this network namespace |
//! | `@INODE` | nothing; while it is there, no other agent that ends takes the group above away, to which our programs are attached |
//!
//! A process keeps its network namespace alive: while one is in such a group, its number is given to no other namespace.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_terms::{GenerationNumber, ServiceName};
use rustix::fs::{FlockOperation, flock};

use crate::{
    host::cgroup::{Cgroup, CgroupError, Hierarchy},
    places::Places,
};

/// The control groups of one agent.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Groups {
    /// What they are below.
    above: PathBuf,
    /// Of the agent's network namespace.
    inode: u64,
    /// Locked for as long as an agent lives: another one of this namespace that ends leaves the group alone then.
    held: Option<Arc<File>>,
}

impl Groups {
    /// Of the agent with these places in this network namespace.
    ///
    /// # Errors
    ///
    /// When the place is not in the hierarchy.
    pub(in crate::daemon) fn of(
        places: &Places,
        hierarchy: &Hierarchy,
        network_namespace: u64,
    ) -> Result<Self, CgroupError> {
        let above = Self::above_in(places, hierarchy)?.directory().to_owned();
        Ok(Self { above, inode: network_namespace, held: None })
    }

    /// The group above of an agent with these places, whether it is there or not.
    ///
    /// # Errors
    ///
    /// When the place is not in the hierarchy.
    pub(in crate::daemon) fn above_in(
        places: &Places,
        hierarchy: &Hierarchy,
    ) -> Result<Cgroup, CgroupError> {
        hierarchy.named(places.cgroup.as_deref().unwrap_or_else(|| Path::new(Places::CGROUP)))
    }

    /// The group above, which may be others' too.
    pub(in crate::daemon) fn above(&self) -> &Path {
        &self.above
    }

    /// What keeps the group above.
    pub(in crate::daemon) fn keeper(&self) -> PathBuf {
        self.above.join(format!("@{}", self.inode))
    }

    /// Lets other agents of this network namespace know that this one needs the group above.
    ///
    /// # Errors
    ///
    /// When the keeper is not there, or cannot be locked.
    pub(in crate::daemon) fn hold(&mut self) -> io::Result<()> {
        let keeper = File::open(self.keeper())?;
        flock(&keeper, FlockOperation::NonBlockingLockShared)?;
        self.held = Some(Arc::new(keeper));
        Ok(())
    }

    /// Whether another agent of this network namespace lives that needs the group above.
    fn is_needed(&self) -> bool {
        let keeper = match &self.held {
            Some(held) => Ok(Arc::clone(held)),
            None => File::open(self.keeper()).map(Arc::new),
        };
        keeper.is_ok_and(|it| flock(&it, FlockOperation::NonBlockingLockExclusive).is_err())
    }

    /// Where a generation is launched.
    pub(in crate::daemon) fn of_generation(
        &self,
        service: &str,
        number: GenerationNumber,
    ) -> PathBuf {
        self.above.join(format!("{service}.{number}@{}", self.inode))
    }

    /// Those that are there.
    pub(in crate::daemon) fn present(&self, hierarchy: &Hierarchy) -> Vec<Cgroup> {
        let suffix = format!("@{}", self.inode);
        let entries = fs::read_dir(&self.above).into_iter().flatten().filter_map(Result::ok);
        let own = entries.filter(|it| it.file_name().to_string_lossy().ends_with(&suffix));
        own.filter_map(|entry| hierarchy.open(&entry.path()).ok()).collect()
    }

    /// Makes as many as an upgrade takes, and removes them: a limit of the groups above may allow fewer (`cgroup.max.descendants`).
    ///
    /// # Errors
    ///
    /// When the kernel refuses one.
    pub(in crate::daemon) fn require_room(&self, hierarchy: &Hierarchy) -> Result<(), CgroupError> {
        let paths = [1, 2].map(|number| self.above.join(format!("{number}@{}", self.inode)));
        let made = paths.map(|path| hierarchy.create(&path));
        // Whether or not one is missing, all go.
        let removed = made.iter().flatten().map(Cgroup::remove).fold(Ok(()), Result::and);
        made.into_iter().try_for_each(|it| it.map(drop)).and(removed)
    }

    /// Removes those that are empty, and the group above if it is nobody else's. Returns those where processes live.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(in crate::daemon) fn remove(
        &self,
        hierarchy: &Hierarchy,
    ) -> Result<Vec<Cgroup>, CgroupError> {
        let (used, unused): (Vec<_>, Vec<_>) = self
            .present(hierarchy)
            .into_iter()
            .partition(|group| group.is_populated().unwrap_or(false));
        let keeper = self.keeper();
        let needed = self.is_needed();
        let goes = |group: &&Cgroup| !(needed && group.directory() == keeper);
        unused.iter().filter(goes).try_for_each(Cgroup::remove)?;
        if let Ok(above) = hierarchy.open(&self.above) {
            above.remove_unless_used()?;
        }
        Ok(used)
    }
}

/// Of which service the group of this name holds a generation, whoever's agent made it.
pub(in crate::daemon) fn service_of(group: &Path) -> Option<ServiceName> {
    let name = group.file_name()?.to_str()?;
    let generation = name.split_once('@').map_or(name, |(generation, _)| generation);
    generation.rsplit_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_the_group_is() {
        let groups = Groups { above: "/sys/fs/cgroup/agent".into(), inode: 42, held: None };
        let path = groups.of_generation("web.eu", GenerationNumber(7));
        assert_eq!(path, Path::new("/sys/fs/cgroup/agent/web.eu.7@42"));
        assert_eq!(service_of(&path), "web.eu".parse().ok());
        // An earlier agent had no namespace in it.
        assert_eq!(service_of(Path::new("/agent/web.eu.7")), "web.eu".parse().ok());
        assert_eq!(service_of(&groups.keeper()), None);
    }
}
