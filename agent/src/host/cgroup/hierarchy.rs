//! Where the tree of control groups is, and the way to each of them.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf, StripPrefixError},
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
        group.refuse_threads()?;
        Ok(group)
    }

    /// The group that a process is in.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Unseen`] if the mount does not show it.
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
        let unseen =
            || CgroupError::Unseen { pid, path: path.into(), mounted: self.mount.point.clone() };
        let inside = path.strip_prefix(&self.mount.root);
        let inside = inside.map_err(|_outside: StripPrefixError| unseen())?;
        // Above the root of our control group namespace.
        if inside.components().any(|it| it == Component::ParentDir) {
            return Err(unseen());
        }
        self.below_root(inside)
    }

    /// Why a server may not be taken charge of, whichever it is: the group of some process that we can name, and that is no thread of
    /// the kernel's, is not shown.
    pub fn unseen(&self) -> Option<CgroupError> {
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(number);
        let runs_a_program = |pid: &Pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        let groups = pids.filter_map(Pid::new).filter(runs_a_program).map(|pid| self.of(pid));
        groups.filter_map(Result::err).find(|error| matches!(error, CgroupError::Unseen { .. }))
    }

    /// The group that somebody means by this path, whether it is there or not: a directory of a mount of the hierarchy, or a
    /// cgroup's name, which begins at the root of the hierarchy.
    ///
    /// # Errors
    ///
    /// When it is a place elsewhere in the file system.
    pub fn named(&self, path: &Path) -> Result<Cgroup, CgroupError> {
        let others = mounts::of_type("cgroup2").map_err(CgroupError::MountTable)?;
        self.named_beside(&others, path)
    }

    fn named_beside(&self, others: &[Mount], path: &Path) -> Result<Cgroup, CgroupError> {
        let elsewhere =
            || CgroupError::Elsewhere { path: path.to_owned(), mounted: self.mount.point.clone() };
        let plain = without_dots(path).ok_or_else(elsewhere)?;
        // There is one hierarchy of version 2, however often it is mounted.
        let mounts = std::iter::once(&self.mount).chain(others);
        for Mount { root, point } in mounts {
            if let Ok(below) = plain.strip_prefix(point) {
                let inside = root.join(below);
                let ours = inside.strip_prefix(&self.mount.root);
                return self.below_root(ours.map_err(|_outside: StripPrefixError| elsewhere())?);
            }
        }
        // No group is meant by what begins with a directory of the machine.
        let first = plain.components().find(|it| matches!(it, Component::Normal(_)));
        let is_place = plain.is_absolute()
            && first.is_some_and(|first| Path::new("/").join(first).symlink_metadata().is_ok());
        if is_place { Err(elsewhere()) } else { self.below_root(&plain) }
    }

    /// The group of a cgroup's name.
    fn below_root(&self, path: &Path) -> Result<Cgroup, CgroupError> {
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

/// What somebody means by a path who is in this working directory: if that is a control group, one below it, and elsewhere the name
/// of one, which says the same in every directory.
///
/// # Errors
///
/// When there is no working directory any more.
pub fn meant_here(path: &Path) -> io::Result<PathBuf> {
    /// `CGROUP2_SUPER_MAGIC`
    const MAGIC: u64 = 0x6367_7270;
    let is_group = rustix::fs::statfs(".").is_ok_and(|it| it.f_type as u64 == MAGIC);
    if is_group { std::path::absolute(path) } else { Ok(path.to_owned()) }
}

/// The same path without names that lead up; nothing for one that leads above its beginning. What is called so is a path of the
/// file system, in which there are no links on the way (cgroupfs has none).
fn without_dots(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir
                if matches!(plain.components().next_back(), Some(Component::Normal(_))) =>
            {
                plain.pop();
            }
            Component::ParentDir => return None,
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => {
                plain.push(component);
            }
        }
    }
    Some(plain)
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

    #[test]
    fn a_group_is_named_by_its_directory_or_by_its_name() {
        let mount = |root: &str, point: &str| Mount { root: root.into(), point: point.into() };
        let hierarchy = Hierarchy { mount: mount("/", "/sys/fs/cgroup/unified") };
        let others = [mount("/part", "/mnt/part")];
        let named = |path: &str| hierarchy.named_beside(&others, Path::new(path));
        for (path, below) in [
            ("agent", "agent"),
            ("/no-such-directory/agent", "no-such-directory/agent"),
            ("/sys/fs/cgroup/unified/a/b", "a/b"),
            ("/sys/fs/cgroup/unified/../unified/a", "a"),
            ("/mnt/part/a", "part/a"),
        ] {
            let group = named(path).unwrap();
            assert_eq!(group.directory(), hierarchy.root().directory().join(below), "{path}");
        }
        for path in ["/sys/fs/cgroup/agent", "/sys/fs/cgroup/unified/../a", "/tmp/a", "../a"] {
            assert!(matches!(named(path), Err(CgroupError::Elsewhere { .. })), "{path}");
        }
    }
}
