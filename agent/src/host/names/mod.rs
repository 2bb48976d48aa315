//! Names in the file system that a server goes by: its PID file, the Unix sockets that it listens on.
//!
//! A server replaces them as it starts and removes them as it ends, and cannot know that another generation goes by the same
//! names.
//!
//! - [`find`]: which names a process goes by
//! - [`owners`]: who may go by it
//! - [`second`]: a name gets a second one beside it in time, and is given back when the first one is gone
//! - [`content`]: what a PID file held is written again
//!
//! What a server does in its directories is not trusted. Directories are opened below the root that its process has
//! (`RESOLVE_IN_ROOT`), and from there on only plain names are used, of which no symbolic link is followed.

pub mod content;
pub mod find;
pub mod owners;
pub mod second;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use serde::{Deserialize, Serialize};

use super::{os_text::OsText, process::Pid};

/// A name, as a server sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// The absolute path of its directory.
    pub directory: OsText,
    /// What it is called there.
    pub file: OsText,
}

impl Name {
    fn of(path: &Path) -> Option<Self> {
        let (directory, file) = (path.parent()?, path.file_name()?);
        directory.is_absolute().then(|| Self { directory: directory.into(), file: file.into() })
    }

    /// The whole path.
    pub fn path(&self) -> PathBuf {
        Path::new(self.directory.as_os_str()).join(&self.file)
    }
}

/// A directory as this process sees it.
fn open_directory(of: Pid, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, format!("/proc/{of}/root"), flags, Mode::empty())?;
    Ok(openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
}

#[cfg(test)]
fn in_a_directory(file: &str) -> (tempfile::TempDir, Name) {
    let directory = tempfile::tempdir().unwrap();
    let name = Name::of(&directory.path().join(file)).unwrap();
    (directory, name)
}
