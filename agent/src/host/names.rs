//! Names in the file system that a server goes by: its PID file, the Unix sockets that it listens on.
//!
//! A server removes them as it ends, and cannot know that its successor goes by the same names. Such a name is given a second
//! one beside it in time, and given back when the first one is gone: the file behind it never changes.
//!
//! What a server does in its directories is not trusted. Directories are opened below the root that its process has
//! (`RESOLVE_IN_ROOT`), and from there on only plain names are used, of which no symbolic link is followed.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, fstat, linkat,
        openat, openat2, renameat, renameat_with, statat, unlinkat,
    },
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};
use serde::{Deserialize, Serialize};

use super::{
    holders,
    os_text::OsText,
    process::{Pid, command_line, name, status},
    sock_diag::SocketInode,
};

/// A name, as a server sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// The absolute path of its directory.
    pub directory: OsText,
    /// What it is called there.
    pub file: OsText,
}

impl Name {
    fn of(path: &Path) -> Option<Self> {
        let (directory, file) = (path.parent()?, path.file_name()?);
        directory.is_absolute().then(|| Self { directory: directory.into(), file: file.into() })
    }

    /// The whole path.
    pub fn path(&self) -> PathBuf {
        Path::new(self.directory.as_os_str()).join(&self.file)
    }
}

/// The second name of one that another generation may remove.
pub fn second_of(name: &Name, leaving: u32) -> OsText {
    let ending = format!("{SECOND}{leaving}");
    OsText::from_bytes(&[b".", name.file.as_bytes(), ending.as_bytes()].concat())
}

/// A file that is rewritten under its first name has the new content under the second one too.
fn is_second(file: &OsText) -> bool {
    let file = file.as_bytes();
    file.starts_with(b".") && file.windows(SECOND.len()).any(|part| part == SECOND.as_bytes())
}

const SECOND: &str = ".of-generation-";

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
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match FileType::from_raw_mode(there.st_mode) {
        FileType::Socket => nobody_listens(&path),
        FileType::RegularFile => {
            let number = read_content(&File::open(path)?).and_then(|content| content.number());
            Ok(number.is_some_and(|it| !Path::new(&format!("/proc/{it}")).exists()))
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

/// What a PID file holds: some servers empty theirs as they end (lighttpd, which may not remove it as another user).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Content {
    device: u64,
    inode: u64,
    text: OsText,
}

impl Content {
    /// The number that it begins with.
    fn number(&self) -> Option<i32> {
        std::str::from_utf8(self.text.as_bytes()).ok()?.split_whitespace().next()?.parse().ok()
    }
}

/// What is in a PID file, if this name is one.
pub fn content(name: &Name, of: Pid) -> Option<Content> {
    read_content(&open_file(name, of, OFlags::RDONLY).ok()?)
}

/// Writes again what was in a PID file, if it is that very file and names none of these processes any more, though it did.
/// Says whether that was so.
///
/// # Errors
///
/// When the system refuses.
pub fn restore(name: &Name, content: &Content, named: &[Pid]) -> io::Result<bool> {
    let Some(first) = named.first() else { return Ok(false) };
    let numbers: HashSet<i32> = named.iter().flat_map(|pid| numbers_of(*pid)).collect();
    let names_one = |content: &Content| content.number().is_some_and(|it| numbers.contains(&it));
    let mut file = open_file(name, *first, OFlags::RDWR)?;
    let Some(now) = read_content(&file) else { return Ok(false) };
    let is_same = (now.device, now.inode) == (content.device, content.inode);
    if !is_same || names_one(&now) || !names_one(content) {
        return Ok(false);
    }
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(content.text.as_bytes())?;
    Ok(true)
}

/// The PID files that name one of these processes, and the named Unix sockets that they listen on.
pub fn all_of(pids: &[Pid]) -> Vec<Name> {
    let mut found = pid_files(pids, &[]);
    found.extend(shared_sockets(pids, pids));
    found
}

/// The PID files that name one of these processes, in the directories that they or these others use.
pub fn pid_files(named: &[Pid], others: &[Pid]) -> Vec<Name> {
    let Some(first) = named.first() else { return Vec::new() };
    let numbers: HashSet<i32> = named.iter().flat_map(|pid| numbers_of(*pid)).collect();
    let (mut directories, mut mentioned) = (BTreeSet::new(), BTreeSet::new());
    for pid in named.iter().chain(others).take(MOST_PROCESSES) {
        directories.extend(directories_of(*pid));
        for path in paths_in_command(*pid) {
            directories.extend(path.parent().map(Path::to_owned));
            mentioned.extend(Name::of(&path));
        }
    }
    let mut found = mentioned;
    for directory in directories.iter().take(MOST_DIRECTORIES) {
        let Ok(open) = open_directory(*first, directory) else { continue };
        found.extend(names_like_pid(&open).filter_map(|file| Name::of(&directory.join(file))));
    }
    found.retain(|name| {
        let number = content(name, *first).and_then(|content| content.number());
        number.is_some_and(|number| numbers.contains(&number))
    });
    found.into_iter().take(MOST_NAMES).collect()
}

/// The Unix sockets that have a name which one of these processes listens under, and one of those others did.
pub fn shared_sockets(named: &[Pid], others: &[Pid]) -> Vec<Name> {
    let Some(first) = named.first() else { return Vec::new() };
    let Ok(table) = fs::read(format!("/proc/{first}/net/unix")) else { return Vec::new() };
    let bound: Vec<_> = table.split(|byte| *byte == b'\n').filter_map(bound_socket).collect();
    let inodes: HashSet<_> = bound.iter().map(|(inode, _)| *inode).collect();
    let paths = |pids: &[Pid]| -> BTreeSet<&Path> {
        let holders = holders::holders_among(pids.iter().copied(), &inodes).unwrap_or_default();
        let held: HashSet<_> = holders.found.into_iter().flat_map(|it| it.inodes).collect();
        bound.iter().filter(|(inode, _)| held.contains(inode)).map(|(_, path)| *path).collect()
    };
    let (theirs, ours) = (paths(others), paths(named));
    let names = theirs.intersection(&ours).filter_map(|path| Name::of(path));
    names.filter(|name| is_socket(*first, name)).take(MOST_NAMES).collect()
}

/// A line of `/proc/net/unix`: its seventh word is the inode, the eighth, if there is one, the path.
fn bound_socket(line: &[u8]) -> Option<(SocketInode, &Path)> {
    let mut words = line.splitn(8, |byte| *byte == b' ').filter(|word| !word.is_empty());
    let (inode, path) = (words.nth(6)?, words.next()?);
    let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
    path.starts_with(b"/").then(|| (SocketInode(inode), Path::new(OsStr::from_bytes(path))))
}

/// Where a process keeps its things.
fn directories_of(pid: Pid) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::from([PathBuf::from("/run")]);
    let program = command_line(pid).ok().and_then(|words| words.first().cloned());
    let program = program.as_ref().and_then(|it| Path::new(it.as_os_str()).file_name());
    directories.extend(program.map(|program| Path::new("/run").join(program)));
    directories.extend(name(pid).ok().map(|name| Path::new("/run").join(name)));
    directories.extend(fs::read_link(format!("/proc/{pid}/cwd")).ok());
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let files = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    directories.extend(files.take(MOST_ENTRIES).filter_map(|file| Some(file.parent()?.to_owned())));
    let kernels = ["/dev", "/proc", "/sys"].map(Path::new);
    directories.retain(|it| it.is_absolute() && !kernels.iter().any(|root| it.starts_with(root)));
    directories
}

/// The absolute paths in a command line, also those behind a `=`.
fn paths_in_command(pid: Pid) -> Vec<PathBuf> {
    let words = command_line(pid).unwrap_or_default();
    let path = |word: &OsText| {
        let start = word.as_bytes().split(|byte| *byte == b'=').next_back()?;
        start.starts_with(b"/").then(|| PathBuf::from(OsStr::from_bytes(start)))
    };
    words.iter().skip(1).take(MOST_ENTRIES).filter_map(path).collect()
}

fn names_like_pid(directory: &OwnedFd) -> impl Iterator<Item = OsText> {
    let entries = Dir::read_from(directory).ok().into_iter().flatten().take(MOST_ENTRIES);
    entries.filter_map(|entry| {
        let name = OsText::from_bytes(entry.ok()?.file_name().to_bytes());
        let is_like = name.as_bytes().to_ascii_lowercase().windows(3).any(|part| part == b"pid");
        (is_like && !is_second(&name)).then_some(name)
    })
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

fn read_content(file: &File) -> Option<Content> {
    let about = file.metadata().ok().filter(|it| it.is_file() && it.len() <= LARGEST_PID_FILE)?;
    let mut text = Vec::new();
    file.take(LARGEST_PID_FILE).read_to_end(&mut text).ok()?;
    Some(Content { device: about.dev(), inode: about.ino(), text: OsText::from_bytes(&text) })
}

fn is_socket(root: Pid, name: &Name) -> bool {
    open_directory(root, Path::new(name.directory.as_os_str()))
        .and_then(|it| Ok(statat(&it, name.file.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)?))
        .is_ok_and(|file| FileType::from_raw_mode(file.st_mode) == FileType::Socket)
}

/// Of a process in a PID namespace of its own, which writes the number that it has there.
fn numbers_of(pid: Pid) -> Vec<i32> {
    let inside = status(pid).ok().and_then(|status| status.nspid?.last().copied());
    [Some(pid.get()), inside].into_iter().flatten().collect()
}

/// A directory as this process sees it.
fn open_directory(of: Pid, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, format!("/proc/{of}/root"), flags, Mode::empty())?;
    Ok(openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
}

const fn same(one: &Stat, other: &Stat) -> bool {
    one.st_dev == other.st_dev && one.st_ino == other.st_ino
}

/// A number and a line end fit many times over.
const LARGEST_PID_FILE: u64 = 64;
const MOST_PROCESSES: usize = 16;
const MOST_DIRECTORIES: usize = 64;
const MOST_ENTRIES: usize = 1024;
const MOST_NAMES: usize = 32;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn in_a_directory(file: &str) -> (tempfile::TempDir, Name) {
        let directory = tempfile::tempdir().unwrap();
        let name = Name::of(&directory.path().join(file)).unwrap();
        (directory, name)
    }

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

    #[test]
    fn a_pid_file_names_the_process_and_is_no_link_and_no_large_file() {
        let (directory, name) = in_a_directory("server.pid");
        let ours = std::process::id().to_string();
        fs::write(name.path(), format!("{ours}\n")).unwrap();
        fs::write(directory.path().join("other.pid"), "1\n").unwrap();
        fs::write(directory.path().join("long.pid"), format!("{ours}{}", " ".repeat(64))).unwrap();
        std::os::unix::fs::symlink("server.pid", directory.path().join("link.pid")).unwrap();
        keep(&name, &second_of(&name, 2), Pid::ours()).unwrap();
        let _open = File::open(directory.path().join("other.pid")).unwrap();
        let found = pid_files(&[Pid::ours()], &[]);
        let here: Vec<_> = found.iter().filter(|it| it.directory == name.directory).collect();
        assert_eq!(here, [&name]);
    }

    #[test]
    fn what_a_pid_file_held_is_written_again_if_it_is_the_same_file() {
        let (_directory, name) = in_a_directory("server.pid");
        let ours = [Pid::ours()];
        fs::write(name.path(), format!("{}\n", std::process::id())).unwrap();
        let held = content(&name, Pid::ours()).unwrap();
        assert!(!restore(&name, &held, &ours).unwrap(), "it is there");
        fs::write(name.path(), "").unwrap();
        assert!(restore(&name, &held, &ours).unwrap());
        assert_eq!(content(&name, Pid::ours()).unwrap(), held);
        fs::write(name.path(), "1\n").unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = Pid::new(child.id().try_into().unwrap()).unwrap();
        let restored = restore(&name, &held, &[other]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!restored.unwrap(), "whom it named is not served any more");
        fs::write(name.path(), "").unwrap();
        let moved = Content { inode: held.inode + 1, ..held };
        assert!(!restore(&name, &moved, &ours).unwrap(), "another file");
        assert_eq!(fs::read_to_string(name.path()).unwrap(), "");
    }

    #[test]
    fn a_socket_is_shared_if_both_listen_under_its_name() {
        let (_directory, name) = in_a_directory("control.sock");
        let _old = UnixListener::bind(name.path()).unwrap();
        let ours = [Pid::ours()];
        assert!(shared_sockets(&ours, &ours).contains(&name));
        assert!(shared_sockets(&ours, &[]).is_empty());
        fs::remove_file(name.path()).unwrap();
        assert!(!shared_sockets(&ours, &ours).contains(&name), "it is gone already");
    }
}
