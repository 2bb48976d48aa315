//! The output of launched generations, one file each. They write it themselves; we make room for it and clear it away.

use std::{
    collections::HashSet,
    ffi::CString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use agent_rollout::Service;
use agent_terms::{GenerationNumber, ServiceId, ServiceName};
use rustix::{
    fs::{OFlags, fremovexattr, llistxattr, llistxattr_query},
    io::Errno,
};

use super::error::NotLaunched;
use crate::{
    daemon::{
        DirectoryError,
        agent::Agent,
        private_directory,
        step::{Step, take},
        world_error::WorldError,
    },
    host::patience::{self, Whose},
};

/// How long an output may become, and how much of its end is kept then.
const MOST_BYTES: u64 = 1 << 20;
const END_BYTES: u64 = 256 << 10;

/// How much room it may take: a file can have more than its length (`FALLOC_FL_KEEP_SIZE`), and a file system gives it some.
const MOST_ROOM: u64 = 4 << 20;
/// The unit of `st_blocks`, whatever the file system's is.
const BLOCK: u64 = 512;

/// Of so many generations that are gone the output is kept while the service is attached.
const KEPT: usize = 16;

impl Agent {
    pub(in crate::daemon) fn log_path(
        &self,
        service: &ServiceName,
        number: GenerationNumber,
    ) -> PathBuf {
        self.places.service_dir(service.as_str()).join(format!("{PREFIX}{number}{SUFFIX}"))
    }

    /// Makes the directory for a next one, and clears away the oldest. Says why if there is no room for it: the launch goes on without
    /// an output, because somebody else may have filled the file system.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made otherwise. That an old file stays is logged.
    pub(in crate::daemon) fn prepare_log(
        &self,
        id: ServiceId,
    ) -> Result<Option<DirectoryError>, NotLaunched> {
        let service = &self.record(id).service;
        let directory = self.places.service_dir(service.name().as_str());
        match take(Step::MakeLogDirectory, || Ok(private_directory(&directory)))? {
            Ok(()) => {}
            Err(error) if error.is_lack_of_room() => return Ok(Some(error)),
            Err(error) => return Err(NotLaunched::LogDirectory(error)),
        }
        let gone = all_but_newest(logs_in(&directory), KEPT, |number| {
            service.generation(number).is_some()
        });
        if gone.is_empty() {
            return Ok(None);
        }
        let gone: Vec<_> =
            gone.into_iter().map(|number| self.log_path(service.name(), number)).collect();
        let removed = take(Step::RemoveLogs, || {
            let remove_all = move || {
                for path in gone {
                    remove(&path);
                    remove(&earlier(&path));
                }
            };
            patience::with(Whose::Output(id.0), remove_all).map_err(WorldError::Logs)
        });
        if let Err(problem) = removed {
            tracing::warn!(problem = problem.in_full(), "old logs stay");
        }
        Ok(None)
    }

    /// All of a service that are there, also of generations that are gone: somebody else may have their output.
    pub(in crate::daemon) fn logs_of(&self, service: &Service) -> Vec<PathBuf> {
        let logs = logs_in(&self.places.service_dir(service.name().as_str()));
        logs.into_iter().map(|number| self.log_path(service.name(), number)).collect()
    }

    /// A server that goes on keeps writing to its log; all others go.
    ///
    /// # Errors
    ///
    /// When a server keeps us waiting.
    pub(in crate::daemon) fn remove_logs(&self, service: &Service) -> Result<(), WorldError> {
        let directory = self.places.service_dir(service.name().as_str());
        let kept: HashSet<_> = service
            .generations()
            .iter()
            .map(|it| self.log_path(service.name(), it.number()))
            .collect();
        let remove_them = move || remove_all_but(&kept, &directory);
        patience::with(Whose::Output(service.id().0), remove_them).map_err(WorldError::Logs)
    }
}

fn remove_all_but(kept: &HashSet<PathBuf>, directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| !kept.contains(path)).for_each(|path| remove(&path));
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
            tracing::warn!(%error, directory = %directory.display(), "cannot remove the log directory");
        }
        Ok(()) | Err(_) => {}
    }
}

/// What a server has made of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Room {
    /// It may stay as it is.
    Fits,
    /// It is to be cut.
    TooMuch,
    /// It has more attributes than can be listed, and so be removed: what they take it has until nobody has the file open.
    Stuffed,
}

/// How much room an output takes. Nobody can keep who asks for that waiting.
///
/// # Errors
///
/// When the file cannot be looked at.
pub(in crate::daemon) fn room_of(path: &Path) -> io::Result<Room> {
    let about = fs::symlink_metadata(path)?;
    Ok(match attributes_of(path) {
        Ok(attributes) if attributes.is_empty() && fits(&about) => Room::Fits,
        Ok(_) => Room::TooMuch,
        Err(Errno::TOOBIG | Errno::RANGE) => Room::Stuffed,
        Err(error) => return Err(error.into()),
    })
}

fn fits(about: &Metadata) -> bool {
    about.len() <= MOST_BYTES && about.blocks() * BLOCK <= MOST_ROOM
}

/// The attributes that a server has given its output, and only it: whoever may write to a file may (`xattr_permission`). They count
/// neither as its length nor as its blocks, but on a tmpfs as so many files (`simple_xattr_space`).
fn attributes_of(path: &Path) -> Result<Vec<CString>, Errno> {
    /// The most that the kernel lists (`XATTR_LIST_MAX`).
    const MOST: usize = 64 << 10;
    match llistxattr_query(path) {
        // Where there are none at all.
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let mut names = vec![0; MOST];
    let length = llistxattr(path, &mut names[..])?;
    let names = names[..length].split(|byte| *byte == 0).filter(|it| it.starts_with(b"user."));
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

/// Keeps the end of an output that has become too long, in a file beside it, and begins anew. Its server goes on writing at the
/// new end (`O_APPEND`); what it writes just now may be lost.
///
/// # Errors
///
/// When the file cannot be read or cut.
pub(in crate::daemon) fn cut(path: &Path) -> io::Result<()> {
    let mut file = open(path)?;
    let about = file.metadata()?;
    let length = about.len();
    if !fits(&about) {
        let end = read_end(&mut file, length, END_BYTES);
        // The room first: the end is of no use to anybody whose disk is full. Room beyond the end goes only if the length changes.
        file.set_len(length.saturating_add(1))?;
        file.set_len(0)?;
        fs::write(earlier(path), end?)?;
    }
    remove_attributes(path, &file)
}

fn remove_attributes(path: &Path, file: &File) -> io::Result<()> {
    let attributes = match attributes_of(path) {
        // There are too many.
        Err(Errno::TOOBIG | Errno::RANGE) => return Ok(()),
        attributes => attributes?,
    };
    for attribute in attributes {
        match fremovexattr(file, &attribute) {
            // Whoever has given it may have taken it away.
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The last lines of an output.
pub(in crate::daemon) fn last_lines(path: &Path, lines: usize) -> Vec<String> {
    const BYTES: u64 = 64 << 10;
    let end = open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        read_end(&mut file, length, BYTES)
    });
    let text = end.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

/// Only the file itself: in a runtime directory of a user there may be anything in its place.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn read_end(file: &mut File, length: u64, most: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok(end)
}

/// Where the end goes of what was cut.
fn earlier(path: &Path) -> PathBuf {
    path.with_extension("earlier")
}

fn logs_in(directory: &Path) -> Vec<GenerationNumber> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok();
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| number(entry.file_name().to_str()?))
        .map(GenerationNumber)
        .collect()
}

/// Generations that live do not count.
fn all_but_newest(
    mut logs: Vec<GenerationNumber>,
    kept: usize,
    lives: impl Fn(GenerationNumber) -> bool,
) -> Vec<GenerationNumber> {
    logs.retain(|number| !lives(*number));
    logs.sort_unstable();
    logs.truncate(logs.len().saturating_sub(kept));
    logs
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove the log of a generation that is gone");
    }
}

const PREFIX: &str = "generation-";
const SUFFIX: &str = ".log";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_output_the_end_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("generation-1.log");
        fs::write(&path, "short\n").unwrap();
        cut(&path).unwrap();
        assert_eq!(last_lines(&path, 2), ["short"]);
        let lines: String = (0..200_000).map(|number| format!("line {number}\n")).collect();
        fs::write(&path, &lines).unwrap();
        assert_eq!(last_lines(&path, 1), ["line 199999"]);
        cut(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let end = fs::read_to_string(earlier(&path)).unwrap();
        assert!(end.len() as u64 == END_BYTES && end.ends_with("line 199999\n"));
        assert_eq!(logs_in(directory.path()), [GenerationNumber(1)]);
    }

    #[test]
    fn attributes_are_taken_away() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("generation-1.log");
        fs::write(&path, "short\n").unwrap();
        assert_eq!(room_of(&path).unwrap(), Room::Fits);
        let set = |name: String| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(&path, name, &[0; 100], flags)
        };
        if set("user.first".to_owned()) == Err(Errno::OPNOTSUPP) {
            return eprintln!("skipped: this kernel has no attributes there");
        }
        assert_eq!(room_of(&path).unwrap(), Room::TooMuch);
        cut(&path).unwrap();
        assert_eq!(room_of(&path).unwrap(), Room::Fits);
        assert_eq!(last_lines(&path, 1), ["short"]);
        (0..400).for_each(|number| set(format!("user.{number:0>200}")).unwrap());
        assert_eq!(room_of(&path).unwrap(), Room::Stuffed);
    }

    #[test]
    fn what_a_link_leads_to_is_not_cut() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("link"), directory.path().join("other"));
        fs::write(&other, vec![0; MOST_BYTES as usize + 1]).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(cut(&path).is_err());
        assert_eq!(fs::metadata(&other).unwrap().len(), MOST_BYTES + 1);
    }

    #[test]
    fn the_oldest_of_the_dead_go() {
        let logs = [9, 1, 10, 3, 2].map(GenerationNumber).to_vec();
        let gone = all_but_newest(logs, 2, |it| it == GenerationNumber(1));
        assert_eq!(gone, [2, 3].map(GenerationNumber));
    }
}
