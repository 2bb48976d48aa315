//! Tells when a control group becomes empty.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use super::CgroupError;
use crate::host::process::readable_within;

/// Watches whether a group has processes. As a descriptor it reports priority data (`POLLPRI`) at
/// each change, until [`PopulatedWatch::is_populated`] is called.
#[derive(Debug)]
pub struct PopulatedWatch {
    events: File,
    path: PathBuf,
}

impl PopulatedWatch {
    /// Of the group with this directory.
    pub(super) fn open(directory: &Path) -> Result<Self, CgroupError> {
        let path = directory.join("cgroup.events");
        let events = File::open(&path).map_err(|source| CgroupError::Failed {
            operation: "watch",
            path: path.clone(),
            source,
        })?;
        let watch = Self { events, path };
        // The kernel reports a change since the last reading, so there must have been one.
        watch.is_populated()?;
        Ok(watch)
    }

    /// Whether a live process is in the group or below it, now.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the group has been removed.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        let mut events = [0; 256];
        let length = self.events.read_at(&mut events, 0).map_err(|source| self.failed(source))?;
        let events = events.get(..length).unwrap_or(&events);
        Ok(events.split(|byte| *byte == b'\n').any(|line| line == b"populated 1"))
    }

    /// Waits until the group is empty, at most for `patience`; says whether it is.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the group has been removed.
    pub fn is_empty_within(&self, patience: Duration) -> Result<bool, CgroupError> {
        let deadline = Instant::now() + patience;
        while self.is_populated()? {
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = readable_within(&self.events, PollFlags::PRI, left)
                .map_err(|source| self.failed(source))?;
            if !changed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn failed(&self, source: io::Error) -> CgroupError {
        CgroupError::Failed { operation: "watch", path: self.path.clone(), source }
    }
}

impl AsFd for PopulatedWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl AsRawFd for PopulatedWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.events.as_raw_fd()
    }
}
