//! Notices that a server has written something.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use crate::host::objects::unwatched;

/// Readable as a descriptor when a server has written something.
pub(in crate::daemon) struct LogWatch {
    inotify: OwnedFd,
}

impl LogWatch {
    pub(in crate::daemon) fn new() -> io::Result<Self> {
        Ok(Self { inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)? })
    }

    /// Watches a file until it is written to once, or gets an attribute.
    pub(in crate::daemon) fn watch(&self, file: &Path) -> io::Result<()> {
        let changed = WatchFlags::MODIFY | WatchFlags::ATTRIB;
        let once = changed | WatchFlags::ONESHOT | WatchFlags::DONT_FOLLOW;
        inotify::add_watch(&self.inotify, file, once).map_err(unwatched)?;
        Ok(())
    }

    /// Takes what was reported.
    pub(in crate::daemon) fn take(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        // Ends with EAGAIN.
        while events.next().is_ok() {}
    }
}

impl AsFd for LogWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
