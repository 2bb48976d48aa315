//! Replaces a file, also on a disk that has become full.
//!
//! Two files change places at each write (`RENAME_EXCHANGE`). The one that was replaced keeps its room, and the next text is
//! written there. So both are as long as the longest text, and more: what is left is filled with blanks.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::places::Places;

/// What could not be done, and why.
pub(super) type Failure = (&'static str, io::Error);

/// Puts this text, or nothing, in the place of what `path` has. `most` is as long as the file may become.
///
/// Nothing is synced to a disk: what the state speaks of does not outlive the machine's next start either.
///
/// # Errors
///
/// When the file system refuses; the file is then as it was.
pub(super) fn replace(path: &Path, mut text: Vec<u8>, most: usize) -> Result<(), Failure> {
    let aside = Places::aside(path);
    let (next, is_new) = next(&aside).map_err(|error| ("create", error))?;
    let room = next.metadata().map_or(0, |about| usize::try_from(about.len()).unwrap_or(0));
    text.resize(length(text.len(), room).min(most).max(text.len()), b' ');
    let written = write(&next, &text).map_err(|error| ("write", error));
    let replaced = written.and_then(|()| swap(&aside, path).map_err(|error| ("replace", error)));
    match &replaced {
        // What it has is written anew the next time. Of a new one that would only be taken from whoever needs room.
        Err(_) if is_new => discard(&aside),
        Err(_) => {}
        Ok(()) => reserve(&aside, &text),
    }
    replaced
}

/// As long as the file is, if that is enough.
fn length(text: usize, room: usize) -> usize {
    /// What a few more services and rollouts take.
    const SPARE: usize = 16 << 10;
    /// So that a file grows seldom.
    const STEP: usize = 64 << 10;
    if text <= room { room } else { (text + SPARE).next_multiple_of(STEP) }
}

fn write(file: &File, text: &[u8]) -> io::Result<()> {
    file.write_all_at(text, 0)?;
    file.set_len(text.len() as u64)
}

/// What lies aside, and whether it is new. What is somebody else's, or leads to it, is not written to.
fn next(aside: &Path) -> io::Result<(File, bool)> {
    let open = || OpenOptions::new().write(true).custom_flags(NOT_ELSEWHERE).open(aside);
    if let Ok(file) = open()
        && is_ours_alone(&file.metadata()?)
    {
        return Ok((file, false));
    }
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let create = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    Ok((create, true))
}

/// Neither through a link, nor waiting for whoever reads a pipe.
const NOT_ELSEWHERE: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;

fn is_ours_alone(about: &fs::Metadata) -> bool {
    const OTHERS: u32 = 0o077;
    about.is_file()
        && about.uid() == rustix::process::geteuid().as_raw()
        && about.mode() & OTHERS == 0
        && about.nlink() == 1
}

fn swap(aside: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, aside, CWD, path, RenameFlags::EXCHANGE) {
        // There is nothing to exchange it with, or the file system cannot.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(aside, path),
        swapped => Ok(swapped?),
    }
}

/// Sees to it that the next write has as much room.
fn reserve(aside: &Path, text: &[u8]) {
    let reserved = next(aside).and_then(|(file, _)| {
        if file.metadata()?.len() >= text.len() as u64 {
            return Ok(());
        }
        write(&file, text)
    });
    if let Err(error) = reserved {
        tracing::warn!(%error, path = %aside.display(), "the next state has no room of its own");
    }
}

fn discard(aside: &Path) {
    if let Err(error) = fs::remove_file(aside) {
        tracing::warn!(%error, path = %aside.display(), "cannot remove what was written in part");
    }
}
