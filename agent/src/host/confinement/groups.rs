//! Control groups version 1, where limits live in hierarchies of their own beside ours.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::host::{
    mounts::{self, Mount},
    os_text::OsText,
    process::{Pid, ProcessError, text_of},
};

/// A group of one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What it controls, as the kernel writes it: `memory`, `cpu,cpuacct`, `name=systemd`.
    pub controllers: String,
    /// Its directory, in our mount namespace.
    pub directory: OsText,
    /// Its number: another group can be called by the same name later. Nothing in what was written down before that was looked at.
    #[serde(default)]
    pub id: Option<u64>,
}

impl Group {
    /// Whether it is there, and no other one in its place.
    pub fn exists(&self) -> bool {
        match fs::metadata(self.directory.as_os_str()) {
            Ok(it) => it.is_dir() && self.id.is_none_or(|id| id == it.ino()),
            Err(_) => false,
        }
    }

    /// The nearest group above it that is there. It allows no less, and may allow more.
    pub fn nearest_above(&self) -> Option<Self> {
        let directory = Path::new(self.directory.as_os_str());
        let above = directory.ancestors().skip(1).find(|it| it.is_dir())?;
        // Out of the hierarchy there are none.
        let is_group = above.join("cgroup.procs").exists();
        is_group.then(|| Self { directory: above.into(), id: None, ..self.clone() })
    }
}

/// Those of a process that are not ours too.
///
/// # Errors
///
/// When the process is gone, or may not be looked at.
pub fn of(pid: Pid) -> Result<Vec<Group>, ProcessError> {
    let [theirs, ours] = [pid, Pid::ours()].map(|pid| text_of(pid, "cgroup", "the control groups"));
    let (theirs, ours) = (theirs?, ours?);
    let ours: Vec<_> = memberships(&ours).collect();
    let differing: Vec<_> = memberships(&theirs).filter(|it| !ours.contains(it)).collect();
    let found = differing.into_iter().filter_map(|(controllers, path)| {
        located(controllers, path).transpose().map(|it| {
            it.map_err(|error| ProcessError::reading(pid, "the control groups", error.into()))
        })
    });
    found.collect()
}

/// Lines of `/proc/PID/cgroup`: number, controllers, path; version 2 has the number 0 and no controllers.
/// The path may be anything but a line end, and is where whoever may make groups wants it to be.
pub(in crate::host) fn memberships(table: &[u8]) -> impl Iterator<Item = (&str, &Path)> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut parts = line.splitn(3, |byte| *byte == b':').skip(1);
        let (controllers, path) = (str::from_utf8(parts.next()?).ok()?, parts.next()?);
        let is_first_version = !controllers.is_empty();
        is_first_version.then(|| (controllers, Path::new(OsStr::from_bytes(path))))
    })
}

/// Nothing for a hierarchy that is mounted nowhere, or of which the group is not shown.
fn located(controllers: &str, path: &Path) -> io::Result<Option<Group>> {
    let wanted: Vec<_> = controllers.split(',').collect();
    let mounts = mounts::with_options("cgroup", |options| {
        let options: Vec<_> = options.split(',').collect();
        wanted.iter().all(|it| options.contains(it))
    })?;
    let directory = mounts.iter().find_map(|mount| below(mount, path));
    let group = |it: PathBuf| Group {
        controllers: controllers.to_owned(),
        id: fs::metadata(&it).ok().map(|it| it.ino()),
        directory: it.into(),
    };
    Ok(directory.map(group))
}

fn below(mount: &Mount, path: &Path) -> Option<PathBuf> {
    path.strip_prefix(&mount.root).ok().map(|inside| mount.point.join(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_left_out() {
        let table = b"9:name=systemd:/\n2:cpu,cpuacct:/a:b\n3:pids:/\xff\n0::/c\n";
        let expected = [
            ("name=systemd", Path::new("/")),
            ("cpu,cpuacct", Path::new("/a:b")),
            ("pids", Path::new(OsStr::from_bytes(b"/\xff"))),
        ];
        assert_eq!(memberships(table).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_mount_shows_what_is_below_its_root() {
        let mount = Mount { root: "/a".into(), point: "/sys/fs/cgroup/pids".into() };
        assert_eq!(below(&mount, Path::new("/a/b")), Some("/sys/fs/cgroup/pids/b".into()));
        assert_eq!(below(&mount, Path::new("/b")), None);
    }
}
