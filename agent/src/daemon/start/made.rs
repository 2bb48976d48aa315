//! What a start has made, so that one that fails leaves nothing that was not there before.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::datapath;

/// Takes back what was made, the last first, unless told to keep it.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Made {
    things: Vec<Thing>,
}

#[derive(Debug)]
enum Thing {
    /// A file or an empty directory, a cgroup among them.
    Path(PathBuf),
    /// A directory of pins.
    Pins(PathBuf),
}

impl Made {
    /// This path, with all that leads to it, is about to be made where it is not there.
    pub(in crate::daemon) fn expect(&mut self, path: &Path) {
        let missing = path.ancestors().take_while(|path| !path.exists());
        let mut missing: Vec<_> = missing.map(|path| Thing::Path(path.to_owned())).collect();
        missing.reverse();
        self.things.extend(missing);
    }

    /// The same for a directory of pins.
    pub(in crate::daemon) fn expect_pins(&mut self, pin_dir: &Path) {
        if let Some(above) = pin_dir.parent() {
            self.expect(above);
        }
        if !pin_dir.exists() {
            self.things.push(Thing::Pins(pin_dir.to_owned()));
        }
    }

    /// The start went well.
    pub(in crate::daemon) fn keep(&mut self) {
        self.things.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let is_there = |thing: &Thing| {
            let (Thing::Path(path) | Thing::Pins(path)) = thing;
            path.symlink_metadata().is_ok()
        };
        for thing in self.things.drain(..).rev().filter(is_there) {
            let (path, removed) = match &thing {
                Thing::Path(path) if path.is_dir() => (path, remove_directory(path)),
                Thing::Path(path) => (path, fs::remove_file(path)),
                Thing::Pins(path) => (path, datapath::clear(path).map_err(io::Error::other)),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "cannot remove what was made in vain");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// One with somebody else's files stays: the log that says why the start failed is in it.
fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_and_what_is_kept_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("a/b/new"));
        fs::write(&old, "").unwrap();
        for keep in [false, true] {
            let mut made = Made::default();
            made.expect(&old);
            made.expect(&new);
            fs::create_dir_all(new.parent().unwrap()).unwrap();
            fs::write(&new, "").unwrap();
            if keep {
                made.keep();
            }
            drop(made);
            assert!(old.exists());
            assert_eq!(directory.path().join("a").exists(), keep);
        }
    }

    #[test]
    fn a_directory_with_a_log_in_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path().join("run");
        let mut made = Made::default();
        made.expect(&runtime);
        made.expect(&runtime.join("lock"));
        fs::create_dir(&runtime).unwrap();
        fs::write(runtime.join("lock"), "").unwrap();
        fs::write(runtime.join("agent.log"), "").unwrap();
        drop(made);
        assert!(runtime.join("agent.log").exists() && !runtime.join("lock").exists());
    }
}
