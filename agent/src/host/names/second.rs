//! Second names: the file behind a name never changes by them.

use std::{
    ffi::OsStr,
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

/// The second name of one that another generation may remove.
pub fn second_of(name: &Name, leaving: u32) -> OsText {
    let ending = format!("{SECOND}{leaving}");
    OsText::from_bytes(&[b".", name.file.as_bytes(), ending.as_bytes()].concat())
}

/// A file that is rewritten under its first name has the new content under the second one too.
pub(super) fn is_second(file: &OsText) -> bool {
    let file = file.as_bytes();
    file.starts_with(b".") && file.windows(SECOND.len()).any(|part| part == SECOND.as_bytes())
}

const SECOND: &str = ".of-generation-";

/// Gives a name a second one; once more changes nothing.
///
/// # Errors
///
/// When the system refuses, or somebody else has that second name.
pub fn keep(name: &Name, second: &OsText, of: Pid) -> io::Result<()> {
    let directory = open_directory(of, Path::new(name.directory.as_os_str()))?;
    let file = statat(&directory, name.file.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)?;
    match linkat(
        &directory,
        name.file.as_os_str(),
        &directory,
        second.as_os_str(),
        AtFlags::empty(),
    ) {
        Err(Errno::EXIST) => {
            let there = statat(&directory, second.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            if same(&there, &file) { Ok(()) } else { Err(Errno::EXIST.into()) }
        }
        linked => Ok(linked?),
    }
}

/// Takes the second name away again: it becomes the first one if that is gone.
///
/// # Errors
///
/// When the system refuses.
pub fn give_back(name: &Name, second: &OsText, of: Pid) -> io::Result<Fate> {
    let directory = open_directory(of, Path::new(name.directory.as_os_str()))?;
    let (first, second) = (name.file.as_os_str(), second.as_os_str());
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
pub fn drop_second(name: &Name, second: &OsText, of: Pid) -> io::Result<()> {
    let directory = open_directory(of, Path::new(name.directory.as_os_str()))?;
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
    let (there, kept) = (fstat(&file)?, statat(directory, second, AtFlags::SYMLINK_NOFOLLOW));
    if kept.is_ok_and(|kept| same(&there, &kept)) {
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

const fn same(one: &Stat, other: &Stat) -> bool {
    one.st_dev == other.st_dev && one.st_ino == other.st_ino
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

    #[test]
    fn a_name_that_was_removed_is_given_back_and_one_that_stayed_is_left() {
        let (_directory, name) = in_a_directory("server.pid");
        let second = OsText::from(".server.pid.kept");
        fs::write(name.path(), "7\n").unwrap();
        for _again in 0..2 {
            keep(&name, &second, Pid::ours()).unwrap();
        }
        assert_eq!(give_back(&name, &second, Pid::ours()).unwrap(), Fate::Stayed);
        keep(&name, &second, Pid::ours()).unwrap();
        fs::remove_file(name.path()).unwrap();
        assert_eq!(give_back(&name, &second, Pid::ours()).unwrap(), Fate::GivenBack);
        assert_eq!(fs::read_to_string(name.path()).unwrap(), "7\n");
        assert_eq!(give_back(&name, &second, Pid::ours()).unwrap(), Fate::Unkept);
        assert_eq!(fs::read_dir(name.directory.as_os_str()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_somebody_took_meanwhile_is_theirs() {
        let (_directory, name) = in_a_directory("server.pid");
        let second = OsText::from(".server.pid.kept");
        fs::write(name.path(), "7\n").unwrap();
        keep(&name, &second, Pid::ours()).unwrap();
        fs::remove_file(name.path()).unwrap();
        fs::write(name.path(), format!("{}\n", std::process::id())).unwrap();
        assert!(keep(&name, &second, Pid::ours()).is_err(), "the second name is of another file");
        assert_eq!(give_back(&name, &second, Pid::ours()).unwrap(), Fate::Stayed);
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
        keep(&name, &second, Pid::ours()).unwrap();
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
        let fate = give_back(&name, &second, Pid::ours());
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
        assert_eq!(give_back(&name, &second, Pid::ours()).unwrap(), Fate::Stayed);
        fs::remove_file(name.path()).unwrap();

        let (own, dead) = replaced();
        drop(dead);
        assert_eq!(give_back(&name, &second, Pid::ours()).unwrap(), Fate::GivenBack);
        std::os::unix::net::UnixStream::connect(name.path()).unwrap();
        drop(own);

        fs::remove_file(name.path()).unwrap();
        fs::write(name.path(), "7\n").unwrap();
        keep(&name, &second, Pid::ours()).unwrap();
        fs::remove_file(name.path()).unwrap();
        // No process has a number as large (`PID_MAX_LIMIT`).
        fs::write(name.path(), "4194305\n").unwrap();
        assert_eq!(give_back(&name, &second, Pid::ours()).unwrap(), Fate::GivenBack);
        assert_eq!(fs::read_to_string(name.path()).unwrap(), "7\n");
    }
}
