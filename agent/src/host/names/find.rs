//! Which names processes go by.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::{Name, content, open_directory, owners::Owners, second::is_second};
use crate::host::{
    holders,
    os_text::OsText,
    process::{Pid, command_line, name},
    unix_sockets,
};

/// The PID files that name one of these processes, in the directories that they or these others use.
pub fn pid_files(named: &Owners, others: &[Pid]) -> Vec<Name> {
    let (mut directories, mut mentioned) = (BTreeSet::new(), BTreeSet::new());
    for pid in named.pids().iter().chain(others).take(MOST_PROCESSES) {
        directories.extend(directories_of(*pid));
        for path in paths_in_command(*pid) {
            directories.extend(path.parent().map(Path::to_owned));
            mentioned.extend(Name::of(&path));
        }
    }
    let mut found = mentioned;
    for directory in directories.iter().take(MOST_DIRECTORIES) {
        let Ok(open) = open_directory(named.first(), directory) else { continue };
        found.extend(names_like_pid(&open).filter_map(|file| Name::of(&directory.join(file))));
    }
    found.retain(|name| content::is_of(name, named));
    found.into_iter().take(MOST_NAMES).collect()
}

/// The names of Unix sockets that one of these processes listens under, and one of those others did. The kernel alone is asked.
pub fn shared_sockets(named: &[Pid], others: &[Pid]) -> Vec<Name> {
    let Some(first) = named.first() else { return Vec::new() };
    let table = PathBuf::from(format!("/proc/{first}/net/unix"));
    let table = match unix_sockets::table(&table) {
        Ok(table) => table,
        Err(error) => {
            tracing::warn!(%error, table = %table.display(), "cannot see which Unix sockets a server has");
            return Vec::new();
        }
    };
    let bound: Vec<_> =
        unix_sockets::sockets(&table).filter_map(|it| Some((it.inode, it.path()?))).collect();
    let inodes: HashSet<_> = bound.iter().map(|(inode, _)| *inode).collect();
    let paths = |pids: &[Pid]| -> BTreeSet<&Path> {
        let holders = holders::holders_among(pids.iter().copied(), &inodes).unwrap_or_default();
        let held: HashSet<_> = holders.found.into_iter().flat_map(|it| it.inodes).collect();
        bound.iter().filter(|(inode, _)| held.contains(inode)).map(|(_, path)| *path).collect()
    };
    let (theirs, ours) = (paths(others), paths(named));
    theirs.intersection(&ours).filter_map(|path| Name::of(path)).take(MOST_NAMES).collect()
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

/// Whether there is a socket of one of these processes' users: elsewhere, in a directory of their own, they can bind any path.
pub fn is_socket_of(named: &Owners, name: &Name) -> bool {
    open_directory(named.first(), Path::new(name.directory.as_os_str()))
        .and_then(|it| Ok(statat(&it, name.file.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)?))
        .is_ok_and(|file| {
            FileType::from_raw_mode(file.st_mode) == FileType::Socket && named.are_user(file.st_uid)
        })
}

const MOST_PROCESSES: usize = 16;
const MOST_DIRECTORIES: usize = 64;
const MOST_ENTRIES: usize = 1024;
const MOST_NAMES: usize = 32;

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::net::UnixListener};

    use super::{
        super::{
            in_a_directory,
            second::{FileIdentity, keep, second_of},
        },
        *,
    };

    #[test]
    fn a_pid_file_names_the_process_and_is_no_link_and_no_large_file() {
        let (directory, name) = in_a_directory("server.pid");
        let ours = std::process::id().to_string();
        fs::write(name.path(), format!("{ours}\n")).unwrap();
        fs::write(directory.path().join("other.pid"), "1\n").unwrap();
        fs::write(directory.path().join("long.pid"), format!("{ours}{}", " ".repeat(64))).unwrap();
        std::os::unix::fs::symlink("server.pid", directory.path().join("link.pid")).unwrap();
        keep(
            &name,
            &second_of(&name, 2),
            FileIdentity::of(&name, Pid::ours()).unwrap(),
            Pid::ours(),
        )
        .unwrap();
        let _open = File::open(directory.path().join("other.pid")).unwrap();
        let found = pid_files(&Owners::of(vec![Pid::ours()]).unwrap(), &[]);
        let here: Vec<_> = found.iter().filter(|it| it.directory == name.directory).collect();
        assert_eq!(here, [&name]);
    }

    #[test]
    fn a_socket_is_shared_if_both_listen_under_its_name() {
        let (_directory, name) = in_a_directory("control.sock");
        let _old = UnixListener::bind(name.path()).unwrap();
        let ours = [Pid::ours()];
        let owners = Owners::of(ours.to_vec()).unwrap();
        assert!(shared_sockets(&ours, &ours).contains(&name));
        assert!(is_socket_of(&owners, &name));
        assert!(shared_sockets(&ours, &[]).is_empty());
        fs::remove_file(name.path()).unwrap();
        assert!(!is_socket_of(&owners, &name), "it is gone already");
    }
}
