//! Second names: the file behind a name never changes by them.

use std::{
    ffi::OsStr,
    hash::{BuildHasher as _, RandomState},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, fstat, linkat, openat, renameat,
        renameat_with, statat, unlinkat,
    },
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};
use serde::{Deserialize, Serialize};

use super::{Name, content::Content, open_directory};
use crate::host::{bounded::reopen_regular, os_text::OsText, process::Pid};

/// What has become of a name that had a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there, and was all the time.
    Stayed,
    /// It was removed or replaced, and is there again.
    GivenBack,
    /// It was there, and what it held was not: that is there again.
    Restored,
    /// There was no second name to give it back from.
    Unkept,
}

/// Which file it is, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    const fn new(about: &Stat) -> Self {
        Self { device: about.st_dev, inode: about.st_ino }
    }

    /// The file that has this name now.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    pub fn of(name: &Name, of: Pid) -> io::Result<Self> {
        let directory = open_directory(of, Path::new(name.directory.as_os_str()))?;
        Ok(identity(&directory, name.file.as_os_str())?)
    }
}

fn identity(directory: &OwnedFd, name: &OsStr) -> Result<FileIdentity, Errno> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|about| FileIdentity::new(&about))
}

/// A second name for one that another generation may remove. Others may write in the same directory, and nobody can have put something
/// there under a name that he cannot foresee.
pub fn second_of(name: &Name, leaving: u32) -> OsText {
    let random = RandomState::new().hash_one(leaving);
    let ending = format!("{SECOND}{leaving}.{random:016x}");
    OsText::from_bytes(&[b".", name.file.as_bytes(), ending.as_bytes()].concat())
}

/// A file that is rewritten under its first name has the new content under the second one too.
pub(super) fn is_second(file: &OsText) -> bool {
    let file = file.as_bytes();
    file.starts_with(b".") && file.windows(SECOND.len()).any(|part| part == SECOND.as_bytes())
}

const ROOT: u32 = 0;
const SECOND: &str = ".of-generation-";

/// Gives this file, which goes by a name, a second one; once more changes nothing.
///
/// # Errors
///
/// When the system refuses, the name is another file's by now, or somebody else has that second name.
pub fn keep(name: &Name, second: &OsText, file: FileIdentity, of: Pid) -> io::Result<()> {
    let directory = open_directory(of, Path::new(name.directory.as_os_str()))?;
    let (first, second) = (name.file.as_os_str(), second.as_os_str());
    let linked = linkat(&directory, first, &directory, second, AtFlags::empty());
    if identity(&directory, second) == Ok(file) {
        return Ok(());
    }
    // Of another file, which has got the first name in between.
    if linked.is_ok() {
        unlinkat(&directory, second, AtFlags::empty())?;
    }
    Err(linked.err().unwrap_or(Errno::EXIST).into())
}

/// Whether this file has the second name still.
pub fn is_kept(name: &Name, second: &OsText, file: Option<FileIdentity>, of: Pid) -> bool {
    let directory = open_directory(of, Path::new(name.directory.as_os_str()));
    let there = directory.ok().and_then(|it| identity(&it, second.as_os_str()).ok());
    there.is_some() && there == file
}

/// Takes the second name away again: it becomes the first one if that is gone. What is there under the second name and is not this
/// file is somebody else's.
///
/// # Errors
///
/// When the system refuses.
pub fn give_back(
    name: &Name,
    second: &OsText,
    file: Option<FileIdentity>,
    of: Pid,
) -> io::Result<Fate> {
    let directory = open_directory(of, Path::new(name.directory.as_os_str()))?;
    let (first, second) = (name.file.as_os_str(), second.as_os_str());
    if identity(&directory, second).ok() != file || file.is_none() {
        return Ok(Fate::Unkept);
    }
    match renameat_with(&directory, second, &directory, first, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Fate::GivenBack),
        // Whoever replaced it has left something dead behind.
        Err(Errno::EXIST) if is_stale(&directory, first, second)? => {
            renameat(&directory, second, &directory, first)?;
            Ok(Fate::GivenBack)
        }
        Err(Errno::EXIST) => {
            unlinkat(&directory, second, AtFlags::empty())?;
            Ok(Fate::Stayed)
        }
        Err(Errno::NOENT) => Ok(Fate::Unkept),
        Err(error) => Err(error.into()),
    }
}

/// Takes the second name away from a name whose owner is gone.
///
/// # Errors
///
/// When the system refuses.
pub fn drop_second(
    name: &Name,
    second: &OsText,
    file: Option<FileIdentity>,
    of: Pid,
) -> io::Result<()> {
    let directory = open_directory(of, Path::new(name.directory.as_os_str()))?;
    if identity(&directory, second.as_os_str()).ok() != file {
        return Ok(());
    }
    match unlinkat(&directory, second.as_os_str(), AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        dropped => Ok(dropped?),
    }
}

/// Whether the first name is of another file than the second one, which belongs to nobody: a PID file of a process that is
/// gone, a socket that nobody listens on.
fn is_stale(directory: &OwnedFd, first: &OsStr, second: &OsStr) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Gone meanwhile, or the second one is: then there is nothing to replace.
    let Ok(file) = openat(directory, first, flags, Mode::empty()) else { return Ok(false) };
    let there = fstat(&file)?;
    let kept = statat(directory, second, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileIdentity::new(&kept) == FileIdentity::new(&there) {
        return Ok(false);
    }
    // What belongs to somebody else is for him to remove.
    if there.st_uid != kept.st_uid && there.st_uid != ROOT {
        return Ok(false);
    }
    match FileType::from_raw_mode(there.st_mode) {
        FileType::Socket => nobody_listens(&format!("/proc/thread-self/fd/{}", file.as_raw_fd())),
        FileType::RegularFile => {
            let file = match reopen_regular(&file) {
                // Whoever has a lease on it lives.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                file => file?,
            };
            let content = Content::read(&file).filter(|content| content.number().is_some());
            Ok(content.is_some_and(|content| !content.names_somebody()))
        }
        _ => Ok(false),
    }
}

/// By the kernel's answer to one who connects (`unix_stream_connect`): it refuses for a socket that is gone or does not listen.
/// A queue that is full makes nobody wait.
fn nobody_listens(path: &str) -> io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?) == Err(Errno::CONNREFUSED))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Read as _,
        os::unix::net::UnixListener,
        process::{Command, Stdio},
    };

    use super::{super::in_a_directory, *};

    fn kept(name: &Name, second: &OsText) -> io::Result<()> {
        keep(name, second, FileIdentity::of(name, Pid::ours())?, Pid::ours())
    }

    /// The file that was kept, whatever is there by now.
    fn given_back(name: &Name, second: &OsText) -> io::Result<Fate> {
        let path = name.path().with_file_name(second.as_os_str());
        let file = rustix::fs::lstat(&path).ok().map(|about| FileIdentity::new(&about));
        give_back(name, second, file, Pid::ours())
    }

    #[test]
    fn what_somebody_else_has_put_under_a_second_name_is_left() {
        let (_directory, name) = in_a_directory("server.pid");
        fs::write(name.path(), "7\n").unwrap();
        let ours = FileIdentity::of(&name, Pid::ours()).unwrap();
        let [second, other] = [1, 2].map(|leaving| second_of(&name, leaving));
        assert_ne!(second_of(&name, 1), second, "nobody can foresee it");
        let place = |second: &OsText| name.path().with_file_name(second.as_os_str());
        fs::write(place(&second), "1\n").unwrap();
        assert!(keep(&name, &second, ours, Pid::ours()).is_err());
        fs::remove_file(name.path()).unwrap();
        for file in [Some(ours), None] {
            assert_eq!(give_back(&name, &second, file, Pid::ours()).unwrap(), Fate::Unkept);
            drop_second(&name, &second, file, Pid::ours()).unwrap();
        }
        assert!(!name.path().exists() && place(&second).exists());
        fs::write(name.path(), "8\n").unwrap();
        let theirs = FileIdentity { inode: ours.inode + 1_000_000, ..ours };
        assert!(keep(&name, &other, theirs, Pid::ours()).is_err(), "it is another file");
        assert!(!place(&other).exists());
    }

    #[test]
    fn a_name_that_was_removed_is_given_back_and_one_that_stayed_is_left() {
        let (_directory, name) = in_a_directory("server.pid");
        let second = OsText::from(".server.pid.kept");
        fs::write(name.path(), "7\n").unwrap();
        for _again in 0..2 {
            kept(&name, &second).unwrap();
        }
        assert_eq!(given_back(&name, &second).unwrap(), Fate::Stayed);
        kept(&name, &second).unwrap();
        fs::remove_file(name.path()).unwrap();
        assert_eq!(given_back(&name, &second).unwrap(), Fate::GivenBack);
        assert_eq!(fs::read_to_string(name.path()).unwrap(), "7\n");
        assert_eq!(given_back(&name, &second).unwrap(), Fate::Unkept);
        assert_eq!(fs::read_dir(name.directory.as_os_str()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_somebody_took_meanwhile_is_theirs() {
        let (_directory, name) = in_a_directory("server.pid");
        let second = OsText::from(".server.pid.kept");
        fs::write(name.path(), "7\n").unwrap();
        kept(&name, &second).unwrap();
        fs::remove_file(name.path()).unwrap();
        fs::write(name.path(), format!("{}\n", std::process::id())).unwrap();
        assert!(kept(&name, &second).is_err(), "the second name is of another file");
        assert_eq!(given_back(&name, &second).unwrap(), Fate::Stayed);
        let now = fs::read_to_string(name.path()).unwrap();
        assert_eq!(now, format!("{}\n", std::process::id()));
    }

    /// Whoever opens a file of which somebody has a lease is kept waiting (`/proc/sys/fs/lease-break-time`).
    #[test]
    fn nobody_is_kept_waiting_by_a_lease() {
        const LEASE: &str = "import fcntl, signal, sys\nfile = open(sys.argv[1], 'r+')\n\
            signal.signal(signal.SIGIO, signal.SIG_IGN)\nfcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
            print(flush=True)\nsys.stdin.read()";
        let (_directory, name) = in_a_directory("server.pid");
        let second = OsText::from(".server.pid.kept");
        fs::write(name.path(), "7\n").unwrap();
        kept(&name, &second).unwrap();
        fs::remove_file(name.path()).unwrap();
        // No process has a number as large.
        fs::write(name.path(), "4194305\n").unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", LEASE]).arg(name.path());
        let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            return eprintln!("skipped: there is no Python to hold a lease");
        };
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let began = std::time::Instant::now();
        let fate = given_back(&name, &second);
        let waited = began.elapsed();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(fate.unwrap(), Fate::Stayed);
        assert!(waited < std::time::Duration::from_secs(10), "{waited:?}");
    }

    #[test]
    fn what_one_that_is_gone_left_in_its_place_is_replaced() {
        let (_directory, name) = in_a_directory("server.pid");
        let second = OsText::from(".server.pid.kept");
        let replaced = || {
            let own = UnixListener::bind(name.path()).unwrap();
            fs::rename(name.path(), name.path().with_file_name(second.as_os_str())).unwrap();
            (own, UnixListener::bind(name.path()).unwrap())
        };
        let (_own, _alive) = replaced();
        assert_eq!(given_back(&name, &second).unwrap(), Fate::Stayed);
        fs::remove_file(name.path()).unwrap();

        let (own, dead) = replaced();
        drop(dead);
        assert_eq!(given_back(&name, &second).unwrap(), Fate::GivenBack);
        std::os::unix::net::UnixStream::connect(name.path()).unwrap();
        drop(own);

        fs::remove_file(name.path()).unwrap();
        fs::write(name.path(), "7\n").unwrap();
        kept(&name, &second).unwrap();
        fs::remove_file(name.path()).unwrap();
        // No process has a number as large (`PID_MAX_LIMIT`).
        fs::write(name.path(), "4194305\n").unwrap();
        assert_eq!(given_back(&name, &second).unwrap(), Fate::GivenBack);
        assert_eq!(fs::read_to_string(name.path()).unwrap(), "7\n");
    }
}
