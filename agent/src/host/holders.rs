//! Who has a socket, and which of those processes are the parents.

use std::{collections::HashSet, fs, io, os::unix::ffi::OsStrExt, path::Path};

use super::{
    io_uring,
    process::{Pid, ProcessError, living_thread},
    process_table::{FEW, OpenSockets, ProcessTable, Ring, lists},
    sock_diag::SocketInode,
};

/// A process and the wanted sockets that it has open, by a descriptor or in a ring of io_uring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: Pid,
    /// Its sockets.
    pub inodes: HashSet<SocketInode>,
}

/// What a search for holders found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// The processes, in the order in which they were looked at; of a whole machine by rising number.
    pub found: Vec<Holder>,
    /// How many processes did not let us look. One of them may hold a socket too.
    pub refused: usize,
}

/// All processes that hold one of these sockets. Processes that vanish meanwhile hold nothing.
///
/// # Errors
///
/// When the kernel does not list them; or when `/proc` itself cannot be read, or no descriptor is left to read it with.
pub fn holders(inodes: &HashSet<SocketInode>) -> Result<Holders, ProcessError> {
    match lists() {
        Some(lists) => {
            let open = lists.open_sockets(inodes).map_err(ProcessError::List)?;
            Ok(Holders { found: wanted_in(open, inodes), refused: 0 })
        }
        None => one_by_one(all_pids()?, inodes),
    }
}

/// Those of some processes that hold one of these sockets. A few are looked at one by one, whatever others have open.
///
/// # Errors
///
/// As [`holders`].
pub fn holders_among(
    pids: impl IntoIterator<Item = Pid>,
    inodes: &HashSet<SocketInode>,
) -> Result<Holders, ProcessError> {
    let pids: Vec<Pid> = pids.into_iter().collect();
    if inodes.is_empty() {
        return Ok(Holders::default());
    }
    let Some(lists) = lists() else { return one_by_one(pids, inodes) };
    let found = match pids.len() {
        0..=FEW => {
            let mut found = Vec::new();
            for pid in pids {
                let open = lists.open_sockets_of(pid, inodes).map_err(ProcessError::List)?;
                found.extend(wanted_in(open, inodes));
            }
            found
        }
        _ => {
            let among: HashSet<Pid> = pids.into_iter().collect();
            let open = lists.open_sockets(inodes).map_err(ProcessError::List)?;
            let all = wanted_in(open, inodes).into_iter();
            all.filter(|holder| among.contains(&holder.pid)).collect()
        }
    };
    Ok(Holders { found, refused: 0 })
}

/// Every descriptor is looked at: they are read from the directory, so gaps in their numbers do not hide any.
fn one_by_one(
    pids: impl IntoIterator<Item = Pid>,
    inodes: &HashSet<SocketInode>,
) -> Result<Holders, ProcessError> {
    let mut holders = Holders::default();
    for pid in pids {
        match sockets_of(pid, inodes) {
            Ok(inodes) if inodes.is_empty() => {}
            Ok(inodes) => holders.found.push(Holder { pid, inodes }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => holders.refused += 1,
            // Then nobody would be found to hold anything.
            Err(error) if is_exhaustion(&error) => return Err(ProcessError::List(error)),
            // Gone, or a zombie without threads: both hold nothing.
            Err(_) => {}
        }
    }
    Ok(holders)
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].map(|it| Some(it.raw_os_error())).contains(&error.raw_os_error())
}

/// The numbers of all processes that `/proc` shows, rising.
pub(super) fn all_pids() -> Result<Vec<Pid>, ProcessError> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").map_err(ProcessError::List)? {
        let name = entry.map_err(ProcessError::List)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::new));
    }
    pids.sort_unstable();
    Ok(pids)
}

fn sockets_of(pid: Pid, wanted: &HashSet<SocketInode>) -> io::Result<HashSet<SocketInode>> {
    let mut found = HashSet::new();
    for entry in descriptors(pid)? {
        // A descriptor may be closed between the two calls; what it was does not matter then.
        let Ok(path) = entry.map(|entry| entry.path()) else { continue };
        let Ok(target) = fs::read_link(&path) else { continue };
        found.extend(socket_inode(&target).filter(|inode| wanted.contains(inode)));
        if io_uring::is_ring(&target) {
            let registered = io_uring::registered_sockets(pid, &path).unwrap_or_default();
            found.extend(registered.intersection(wanted));
        }
    }
    Ok(found)
}

/// The holders of the wanted ones, by rising number.
fn wanted_in(open: OpenSockets, wanted: &HashSet<SocketInode>) -> Vec<Holder> {
    let (mut found, rings) = open.into_parts();
    for Ring { seen_as: (pid, descriptor), pids } in rings {
        let path = format!("/proc/{pid}/fd/{descriptor}");
        let registered = io_uring::registered_sockets(pid, path.as_ref()).unwrap_or_default();
        let held: HashSet<_> = registered.intersection(wanted).copied().collect();
        for pid in pids.into_iter().filter(|_| !held.is_empty()) {
            found.entry(pid).or_default().extend(&held);
        }
    }
    let mut holders: Vec<_> =
        found.into_iter().map(|(pid, inodes)| Holder { pid, inodes }).collect();
    holders.sort_unstable_by_key(|holder| holder.pid);
    holders
}

/// All threads have the same ones; the first one shows none any more if it has ended before the others.
fn descriptors(pid: Pid) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let mut first = fs::read_dir(format!("/proc/{pid}/fd"))?.peekable();
    let thread = if first.peek().is_none() { living_thread(pid) } else { None };
    let others = thread.map(|thread| fs::read_dir(thread.join("fd"))).transpose()?;
    Ok(first.chain(others.into_iter().flatten()))
}

/// The number in `socket:[12345]`.
pub(super) fn socket_inode(link: &Path) -> Option<SocketInode> {
    let number = link.as_os_str().as_bytes().strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok().map(SocketInode)
}

/// Those of the processes whose parent is none of them: a server's masters, which get the drain
/// signal. Processes that are gone are left out.
///
/// # Errors
///
/// When the processes cannot be listed.
pub fn roots(pids: &[Pid]) -> Result<Vec<Pid>, ProcessError> {
    Ok(ProcessTable::read_these(pids)?.roots(pids))
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::fd::OwnedFd,
        process::{Child, Command},
    };

    use super::{super::process::command_line, *};

    /// A process that ends with its guard.
    struct Sleeper(Child);

    impl Sleeper {
        /// One that holds `socket` as its standard input, and runs its program already.
        fn holding(socket: &TcpListener, seconds: &str) -> Self {
            let stdin = OwnedFd::from(socket.try_clone().unwrap());
            let sleeper = Self(Command::new("sleep").arg(seconds).stdin(stdin).spawn().unwrap());
            // The kernel lets the parent go on just before the new program has its command line.
            while command_line(sleeper.pid()).unwrap().is_empty() {
                std::thread::yield_now();
            }
            sleeper
        }

        fn pid(&self) -> Pid {
            Pid::new(self.0.id().try_into().unwrap()).unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn inode(socket: &TcpListener) -> SocketInode {
        SocketInode(rustix::fs::fstat(socket).unwrap().st_ino)
    }

    #[test]
    fn all_holders_of_a_socket_are_found_with_that_socket_only() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let sleeper = Sleeper::holding(&socket, "60");
        let found = holders(&HashSet::from([inode(&socket)])).unwrap().found;
        let pids: HashSet<Pid> = found.iter().map(|holder| holder.pid).collect();
        // Another test's child has our descriptors too until it runs its program, so there may be
        // more.
        assert!(pids.is_superset(&HashSet::from([Pid::ours(), sleeper.pid()])), "{found:?}");
        assert!(found.iter().all(|holder| holder.inodes == HashSet::from([inode(&socket)])));
        assert!(found.is_sorted_by_key(|holder| holder.pid));
        let among = holders_among([sleeper.pid()], &HashSet::from([inode(&socket)])).unwrap().found;
        assert_eq!(among.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [sleeper.pid()]);
        assert_eq!(roots(&[Pid::ours(), sleeper.pid()]).unwrap(), [Pid::ours()]);
        drop(other);
    }

    #[test]
    fn only_links_to_sockets_have_an_inode() {
        assert_eq!(socket_inode(Path::new("socket:[42]")), Some(SocketInode(42)));
        for link in ["pipe:[42]", "socket:[]", "socket:[4", "/socket:[42]", "anon_inode:[pidfd]"] {
            assert_eq!(socket_inode(Path::new(link)), None, "{link}");
        }
    }
}
