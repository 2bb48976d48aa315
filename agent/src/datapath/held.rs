//! What is pinned, held by descriptors as well.
//!
//! A pin keeps a program or map for the time without an agent, the agent's own descriptor for the time with one. So nothing
//! is detached when somebody removes a pin while the agent lives, and the pin can be made again.

use std::{fs, os::fd::OwnedFd, path::PathBuf};

use super::{
    DatapathError,
    directories::{make_directory, pin_error},
};
use crate::sys::bpf;

/// Maps and links, and where each is pinned.
#[derive(Debug, Default)]
pub(super) struct Held {
    objects: Vec<(PathBuf, OwnedFd)>,
}

impl Held {
    /// Takes hold of everything that is pinned in these directories.
    pub(super) fn open(directories: [PathBuf; 2]) -> Result<Self, DatapathError> {
        let mut objects = Vec::new();
        for directory in directories {
            let failed = |source| pin_error("read", &directory, source);
            for entry in fs::read_dir(&directory).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let object =
                    bpf::open_pinned(&path).map_err(|source| pin_error("open", &path, source))?;
                objects.push((path, object));
            }
        }
        Ok(Self { objects })
    }

    /// Pins again what is not pinned any more, and says what that was.
    pub(super) fn mend(&self) -> Result<Vec<PathBuf>, DatapathError> {
        let mut mended = Vec::new();
        for (path, object) in &self.objects {
            if fs::exists(path).map_err(|source| pin_error("examine", path, source))? {
                continue;
            }
            path.parent().map_or(Ok(()), make_directory)?;
            bpf::pin(object, path).map_err(|source| pin_error("pin", path, source))?;
            mended.push(path.clone());
        }
        Ok(mended)
    }
}
