//! Directories that are made to try something in, and that nobody takes for his own: control groups, and places for pins.
//!
//! Process numbers would not do for names: in another PID namespace, with the same file systems, they are others'. So the names are
//! random, and each directory is locked for as long as somebody uses it, which ends with his process, however that ends.

use std::{
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// How such a directory is removed.
pub(super) type Remove = fn(&Path) -> io::Result<()>;

/// One of ours. It goes with this.
#[derive(Debug)]
pub(super) struct Trial {
    path: PathBuf,
    _lock: File,
    remove: Remove,
}

impl Trial {
    /// Makes one in this directory.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub(super) fn make(beside: &Path, remove: Remove) -> io::Result<Self> {
        loop {
            let path = beside.join(name());
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            // Between these two somebody may have taken it for one that was left behind.
            match locked(&path) {
                Ok(Some(lock)) => return Ok(Self { path, _lock: lock, remove }),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    remove_or_warn(&path, remove);
                    return Err(error);
                }
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Trial {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        remove_or_warn(&self.path, self.remove);
    }
}

/// Removes what those left in this directory that were interrupted.
pub(super) fn remove_left_behind(beside: &Path, remove: Remove) {
    for entry in fs::read_dir(beside).into_iter().flatten().flatten() {
        let is_one = entry.file_name().to_str().is_some_and(is_name);
        // One that we may not remove is for who may.
        if is_one
            && let Ok(Some(_lock)) = locked(&entry.path())
            && let Err(error) = remove(&entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "what somebody tried it with stays");
        }
    }
}

/// The lock of what is there under this name, unless somebody has it.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let directory = File::open(path)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let is_there = fs::metadata(path)?.ino() == directory.metadata()?.ino();
    Ok(is_there.then_some(directory))
}

fn remove_or_warn(path: &Path, remove: Remove) {
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "what was made to try it stays");
        }
        Ok(()) | Err(_) => {}
    }
}

/// The keys of this are random, and others each time.
fn name() -> String {
    format!("{OURS}{:0DIGITS$x}", RandomState::new().hash_one(()))
}

fn is_name(name: &str) -> bool {
    let digits = name.strip_prefix(OURS).unwrap_or_default();
    digits.len() == DIGITS && digits.bytes().all(|it| it.is_ascii_hexdigit())
}

const OURS: &str = "agent-doctor-";
const DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    #[test]
    fn only_what_nobody_uses_is_removed() {
        let beside = tempfile::tempdir().unwrap();
        let used = Trial::make(beside.path(), remove).unwrap();
        let left = beside.path().join(name());
        let others = beside.path().join(format!("{OURS}1"));
        for directory in [&left, &others] {
            fs::create_dir(directory).unwrap();
        }
        remove_left_behind(beside.path(), remove);
        assert!(used.path().exists() && others.exists() && !left.exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }

    #[test]
    fn no_two_have_one_name() {
        let beside = tempfile::tempdir().unwrap();
        let [one, other] = [(), ()].map(|()| Trial::make(beside.path(), remove).unwrap());
        assert_ne!(one.path(), other.path());
        assert!(is_name(one.path().file_name().unwrap().to_str().unwrap()));
    }
}
