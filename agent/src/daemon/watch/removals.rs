//! Notices that something was removed from the directories that the agent lives in.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::host::objects::unwatched;

/// Readable as a descriptor when something was removed.
pub(in crate::daemon) struct Removals {
    inotify: OwnedFd,
}

/// The state file changes places with this one, at every step.
const ASIDE: &[u8] = b"state.new";

impl Removals {
    pub(in crate::daemon) fn new() -> io::Result<Self> {
        Ok(Self { inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)? })
    }

    /// Watches a directory. For one that is watched already nothing changes.
    ///
    /// # Kernel
    ///
    /// The events come from the virtual file system, so that a BPF file system sends them too. A watch ends with its
    /// directory: one that was made again has to be watched again.
    pub(in crate::daemon) fn watch(&self, directory: &Path) -> io::Result<()> {
        let removed = WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.inotify, directory, removed).map_err(unwatched)?;
        Ok(())
    }

    /// Whether anything was removed since the last call. What exactly is found out by looking, so that an event that was
    /// lost or came late does no harm.
    pub(in crate::daemon) fn any(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        let mut gone = Vec::new();
        // Ends with EAGAIN.
        while let Ok(event) = events.next() {
            let is_aside = event.file_name().is_some_and(|name| name.to_bytes() == ASIDE);
            if !event.events().contains(ReadFlags::MOVED_TO) {
                gone.extend((!is_aside).then_some(event.cookie()));
            } else if is_aside {
                // What was the state until now: the next one is in its place already.
                gone.retain(|cookie| *cookie != event.cookie());
            }
        }
        !gone.is_empty()
    }
}

impl AsFd for Removals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
