//! Where the tree of control groups is, and the way to each of them.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use super::{Cgroup, CgroupError};
use crate::host::{
    bounded,
    mounts::{self, Mount},
    process::Pid,
};

/// The place where the cgroup2 tree is mounted.
///
/// That may be beside a version 1 tree (`/sys/fs/cgroup/unified`): what we need works there as
/// well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    mount: Mount,
}

impl Hierarchy {
    /// The cgroup2 mount of our mount namespace.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NotMounted`] if there is none.
    pub fn find() -> Result<Self, CgroupError> {
        let mounts = mounts::of_type("cgroup2").map_err(CgroupError::MountTable)?;
        // A mount of a part of the tree does not reach the groups outside it: take one of the whole
        // if there is one.
        let whole = mounts.iter().find(|mount| mount.root == Path::new("/"));
        let mount = whole.or_else(|| mounts.first()).cloned().ok_or(CgroupError::NotMounted)?;
        Ok(Self { mount })
    }

    /// How version 2 is mounted where it is not, as a command: beside version 1, or in the usual place.
    pub fn how_to_mount() -> String {
        let old = mounts::of_type("cgroup").unwrap_or_default();
        let place = if old.is_empty() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
        format!("mkdir -p {place} && mount -t cgroup2 cgroup2 {place}")
    }

    /// The group of all groups that the mount shows.
    pub fn root(&self) -> Cgroup {
        Cgroup { directory: self.mount.point.clone(), level: 0 }
    }

    /// The group `path` below the root, which must exist.
    ///
    /// # Errors
    ///
    /// When there is no such group.
    pub fn open(&self, path: &Path) -> Result<Cgroup, CgroupError> {
        let group = self.below_root(path)?;
        group.id()?;
        Ok(group)
    }

    /// The group `path` below the root, made with all groups on the way where they are missing. One on the way that somebody
    /// removes meanwhile is made again.
    ///
    /// # Errors
    ///
    /// When the path leads elsewhere or the kernel refuses.
    pub fn create(&self, path: &Path) -> Result<Cgroup, CgroupError> {
        let group = self.below_root(path)?;
        let mut made = fs::create_dir_all(&group.directory);
        for _again in 0..AGAIN {
            if !made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                break;
            }
            made = fs::create_dir_all(&group.directory);
        }
        made.map_err(|source| group.failed("create", source))?;
        Ok(group)
    }

    /// The group that a process is in.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Outside`] if the mount does not show it.
    pub fn of(&self, pid: Pid) -> Result<Cgroup, CgroupError> {
        /// Hierarchies are a dozen, paths have 4,096 bytes at most.
        const MOST: u64 = 1 << 20;
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let table = bounded::read(&file, MOST).map_err(|source| CgroupError::Failed {
            operation: "read",
            path: file,
            source,
        })?;
        let path = membership(&table).ok_or(CgroupError::NotMounted)?;
        let inside = path.strip_prefix(&self.mount.root).map_err(
            |_outside: std::path::StripPrefixError| CgroupError::Outside { path: path.into() },
        )?;
        self.below_root(inside)
    }

    /// The group of this path, whether it is there or not: a directory below the mount point, or a cgroup's name, which begins at
    /// the root of the hierarchy.
    ///
    /// # Errors
    ///
    /// When the path leads out of the hierarchy.
    pub fn below_root(&self, path: &Path) -> Result<Cgroup, CgroupError> {
        let path = path.strip_prefix(&self.mount.point).unwrap_or(path);
        let mut group = self.root();
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    group.directory.push(name);
                    group.level += 1;
                }
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(CgroupError::Outside { path: path.to_owned() });
                }
            }
        }
        Ok(group)
    }
}

/// The path in the line with hierarchy number 0 and no controllers, which is that of version 2. Whoever may make groups may
/// call them anything, also what is no UTF-8.
pub(in crate::host) fn membership(table: &[u8]) -> Option<&Path> {
    let mut lines = table.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"0::")).map(|it| Path::new(OsStr::from_bytes(it)))
}

/// How often a group on the way may be removed before that is an error.
const AGAIN: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_tree() {
        let mount = Mount { root: "/".into(), point: "/sys/fs/cgroup".into() };
        let hierarchy = Hierarchy { mount };
        assert!(matches!(
            hierarchy.create(Path::new("a/../../etc")),
            Err(CgroupError::Outside { .. })
        ));
        let group = hierarchy.below_root(Path::new("/a/b")).unwrap();
        assert_eq!((group.directory(), group.level()), (Path::new("/sys/fs/cgroup/a/b"), 2));
    }
}
