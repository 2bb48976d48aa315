//! What PID files hold.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use serde::{Deserialize, Serialize};

use super::{Name, open_directory, owners::Owners};
use crate::host::{
    os_text::OsText,
    process::{Pid, Process},
    process_table::Row,
};

/// What a PID file holds: some servers empty theirs as they end (lighttpd, which may not remove it as another user).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Content {
    device: u64,
    inode: u64,
    text: OsText,
}

impl Content {
    /// The number that it begins with.
    pub(super) fn number(&self) -> Option<i32> {
        std::str::from_utf8(self.text.as_bytes()).ok()?.split_whitespace().next()?.parse().ok()
    }

    /// Whether it names a process that runs. One that has ended may not have been waited for.
    pub(super) fn names_somebody(&self) -> bool {
        self.number().and_then(Pid::new).is_some_and(|pid| Process::open(pid).is_ok())
    }

    pub(super) fn read(file: &File) -> Option<Self> {
        let about =
            file.metadata().ok().filter(|it| it.is_file() && it.len() <= LARGEST_PID_FILE)?;
        let mut text = Vec::new();
        file.take(LARGEST_PID_FILE).read_to_end(&mut text).ok()?;
        Some(Self { device: about.dev(), inode: about.ino(), text: OsText::from_bytes(&text) })
    }
}

/// What is in a PID file, if this name is one.
pub fn of(name: &Name, of: Pid) -> Option<Content> {
    Content::read(&open_file(name, of, OFlags::RDONLY).ok()?)
}

/// Whether a name is the PID file of one of these processes: it holds the number of one, was written since that began, and belongs to
/// its user, or to root. By the number that it has in a PID namespace of its own only its user says so, who chooses that number
/// (`ns_last_pid`).
pub(super) fn is_of(name: &Name, named: &Owners) -> bool {
    let Ok(file) = open_file(name, named.first(), OFlags::RDONLY) else { return false };
    let Some(number) = Content::read(&file).and_then(|content| content.number()) else {
        return false;
    };
    let Ok(about) = file.metadata() else { return false };
    // Root writes it for servers that become other users.
    let is_its =
        |row: &&Row| row.user == about.uid() || (about.uid() == ROOT && row.pid.get() == number);
    let mut its = named.with_number(number).filter(is_its);
    its.any(|row| about.modified().is_ok_and(|written| was_there(row.pid, written)))
}

/// Whether a process had begun by then, as far as the clocks tell.
fn was_there(pid: Pid, then: SystemTime) -> bool {
    /// File systems keep times in whole seconds, some in two.
    const GRAIN: Duration = Duration::from_secs(2);
    #[expect(clippy::disallowed_methods, reason = "files have the time of day")]
    let now = SystemTime::now();
    let age = Process::open(pid).and_then(|process| process.age());
    age.is_ok_and(|age| now.checked_sub(age).is_none_or(|began| then + GRAIN >= began))
}

/// Writes again what was in a PID file, if it is that very file and names none of these processes any more, though it did.
/// Says whether that was so.
///
/// # Errors
///
/// When the system refuses.
pub fn restore(name: &Name, content: &Content, named: &Owners) -> io::Result<bool> {
    let names_one = |content: &Content| content.number().is_some_and(|it| named.have_number(it));
    let mut file = open_file(name, named.first(), OFlags::RDWR)?;
    let Some(now) = Content::read(&file) else { return Ok(false) };
    let is_same = (now.device, now.inode) == (content.device, content.inode);
    // Whoever else lives has written it there himself.
    if !is_same || names_one(&now) || now.names_somebody() || !names_one(content) {
        return Ok(false);
    }
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(content.text.as_bytes())?;
    Ok(true)
}

/// Opens a regular file; nothing else is opened, because that could have an effect.
fn open_file(name: &Name, of: Pid, access: OFlags) -> io::Result<File> {
    let directory = open_directory(of, Path::new(name.directory.as_os_str()))?;
    let file = statat(&directory, name.file.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(file.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(&directory, name.file.as_os_str(), flags, Mode::empty())?.into())
}

const ROOT: u32 = 0;

/// A number and a line end fit many times over.
const LARGEST_PID_FILE: u64 = 64;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::in_a_directory, *};

    fn ours() -> Owners {
        Owners::of(vec![Pid::ours()]).unwrap()
    }

    #[test]
    fn a_file_from_before_is_not_of_who_has_its_number_by_now() {
        let (_directory, name) = in_a_directory("server.pid");
        fs::write(name.path(), format!("{}\n", std::process::id())).unwrap();
        let ours = ours();
        assert!(is_of(&name, &ours));
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(name.path()).unwrap().set_modified(long_ago).unwrap();
        assert!(!is_of(&name, &ours));
    }

    #[test]
    fn what_names_one_that_has_ended_is_nobodys() {
        let (_directory, name) = in_a_directory("server.pid");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::new(child.id().cast_signed()).unwrap();
        while Process::open(pid).is_ok() {
            std::thread::yield_now();
        }
        fs::write(name.path(), format!("{}\n", std::process::id())).unwrap();
        let held = of(&name, Pid::ours()).unwrap();
        // Nobody has waited for it.
        fs::write(name.path(), format!("{}\n", child.id())).unwrap();
        assert!(restore(&name, &held, &ours()).unwrap());
        child.wait().unwrap();
    }

    #[test]
    fn what_names_somebody_else_who_lives_is_theirs() {
        let (_directory, name) = in_a_directory("server.pid");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(name.path(), format!("{}\n", std::process::id())).unwrap();
        let held = of(&name, Pid::ours()).unwrap();
        fs::write(name.path(), format!("{}\n", child.id())).unwrap();
        let restored = restore(&name, &held, &ours());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!restored.unwrap());
    }

    #[test]
    fn what_a_pid_file_held_is_written_again_if_it_is_the_same_file() {
        let (_directory, name) = in_a_directory("server.pid");
        let ours = ours();
        fs::write(name.path(), format!("{}\n", std::process::id())).unwrap();
        let held = of(&name, Pid::ours()).unwrap();
        assert!(!restore(&name, &held, &ours).unwrap(), "it is there");
        fs::write(name.path(), "").unwrap();
        assert!(restore(&name, &held, &ours).unwrap());
        assert_eq!(of(&name, Pid::ours()).unwrap(), held);
        fs::write(name.path(), "1\n").unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = Pid::new(child.id().try_into().unwrap()).unwrap();
        let restored = restore(&name, &held, &Owners::of(vec![other]).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!restored.unwrap(), "whom it named is not served any more");
        fs::write(name.path(), "").unwrap();
        let moved = Content { inode: held.inode + 1, ..held };
        assert!(!restore(&name, &moved, &ours).unwrap(), "another file");
        assert_eq!(fs::read_to_string(name.path()).unwrap(), "");
    }
}
