//! Who has a socket, and which of those processes belong together.

use std::{
    collections::{HashMap, HashSet},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use super::{
    process::{Pid, ProcessError, command_line, stat},
    sock_diag::SocketInode,
};

/// A process and the wanted sockets that it has a descriptor of.
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

/// All processes that hold one of these sockets.
///
/// Every descriptor of every process is looked at: they are read from the directory, so gaps in
/// their numbers do not hide any. Processes that vanish meanwhile hold nothing.
///
/// # Errors
///
/// When `/proc` itself cannot be read, or no descriptor is left to read it with.
pub fn holders(inodes: &HashSet<SocketInode>) -> Result<Holders, ProcessError> {
    holders_among(all_pids()?, inodes)
}

/// Those of some processes that hold one of these sockets. It costs as many system calls as they have descriptors,
/// where [`holders`] looks at those of the whole machine.
///
/// # Errors
///
/// When no descriptor is left to read theirs with.
pub fn holders_among(
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
            // Gone, or a zombie: both hold nothing.
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
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed between the two calls; what it was does not matter then.
        let Ok(target) = entry.and_then(|entry| fs::read_link(entry.path())) else { continue };
        found.extend(socket_inode(&target).filter(|inode| wanted.contains(inode)));
    }
    Ok(found)
}

/// The number in `socket:[12345]`.
fn socket_inode(link: &Path) -> Option<SocketInode> {
    let number = link.as_os_str().as_bytes().strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok().map(SocketInode)
}

/// Those of the processes whose parent is none of them: a server's masters, which get the drain
/// signal. Processes that are gone are left out.
///
/// # Errors
///
/// When a process that lives cannot be read.
pub fn roots(pids: &[Pid]) -> Result<Vec<Pid>, ProcessError> {
    let kin = kinships(pids)?;
    let known: HashSet<i32> = kin.iter().map(|kin| kin.pid.get()).collect();
    Ok(kin.iter().filter(|kin| !known.contains(&kin.parent)).map(|kin| kin.pid).collect())
}

/// Splits holders into groups that have nothing to do with each other.
///
/// Two belong together if one is the other's parent, if they share a socket, or if they are children of one process with
/// the same command line, as the workers of a master are that holds no listener itself. A common session or process group
/// ties nothing: one shell starts many servers. More than one group means that several servers share the port: which one
/// an upgrade replaces is then for the operator to say.
///
/// # Errors
///
/// When a process that lives cannot be read.
pub fn related(holders: &[Holder]) -> Result<Vec<Vec<Pid>>, ProcessError> {
    let pids: Vec<Pid> = holders.iter().map(|holder| holder.pid).collect();
    let kinships = kinships(&pids)?;
    let living: HashSet<Pid> = kinships.iter().map(|kin| kin.pid).collect();
    let mut groups = Groups::default();
    for kin in &kinships {
        groups.join(Tie::Process(kin.pid.get()), Tie::Process(kin.pid.get()));
        if Pid::new(kin.parent).is_some_and(|parent| living.contains(&parent)) {
            groups.join(Tie::Process(kin.pid.get()), Tie::Process(kin.parent));
        }
        if let Some(workers) = kin.workers() {
            groups.join(Tie::Process(kin.pid.get()), workers);
        }
    }
    for holder in holders.iter().filter(|holder| living.contains(&holder.pid)) {
        for inode in &holder.inodes {
            groups.join(Tie::Process(holder.pid.get()), Tie::Socket(*inode));
        }
    }
    Ok(groups.of(kinships.iter().map(|kin| kin.pid)))
}

/// Where a process stands among others.
struct Kinship {
    pid: Pid,
    parent: i32,
}

impl Kinship {
    /// What ties it to its siblings: parent and command line. Orphans have the same parent without being siblings, and a
    /// process that is just being given its program has no command line.
    fn workers(&self) -> Option<Tie> {
        const INIT: i32 = 1;
        let command = command_line(self.pid).ok().filter(|command| !command.is_empty())?;
        if self.parent <= INIT {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        command.iter().for_each(|part| part.as_bytes().hash(&mut hasher));
        Some(Tie::Workers(self.parent, hasher.finish()))
    }
}

fn kinships(pids: &[Pid]) -> Result<Vec<Kinship>, ProcessError> {
    let mut found = Vec::with_capacity(pids.len());
    for &pid in pids {
        match stat(pid) {
            Ok(stat) => found.push(Kinship { pid, parent: stat.ppid }),
            Err(ProcessError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// A process, or something that ties processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tie {
    Process(i32),
    Workers(i32, u64),
    Socket(SocketInode),
}

/// Disjoint sets of ties: each points to another of its set, or to itself if it stands for the set.
#[derive(Debug, Default)]
struct Groups {
    next: HashMap<Tie, Tie>,
}

impl Groups {
    fn join(&mut self, one: Tie, other: Tie) {
        let (one, other) = (self.representative(one), self.representative(other));
        self.next.insert(one, other);
    }

    fn representative(&mut self, mut tie: Tie) -> Tie {
        loop {
            let next = *self.next.entry(tie).or_insert(tie);
            if next == tie {
                return tie;
            }
            tie = next;
        }
    }

    /// The processes, by set; sets and processes in the order given.
    fn of(&mut self, pids: impl Iterator<Item = Pid>) -> Vec<Vec<Pid>> {
        let mut sets: Vec<(Tie, Vec<Pid>)> = Vec::new();
        for pid in pids {
            let representative = self.representative(Tie::Process(pid.get()));
            match sets.iter_mut().find(|(tie, _)| *tie == representative) {
                Some((_, set)) => set.push(pid),
                None => sets.push((representative, vec![pid])),
            }
        }
        sets.into_iter().map(|(_, set)| set).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::fd::OwnedFd,
        process::{Child, Command},
    };

    use super::*;

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
    fn holders_are_split_unless_something_ties_them() {
        let sockets =
            [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let strangers = [Sleeper::holding(&sockets[0], "61"), Sleeper::holding(&sockets[1], "62")];
        let sibling = Sleeper::holding(&sockets[0], "63");
        let worker = Sleeper::holding(&sockets[1], "61");
        let holder = |sleeper: &Sleeper, socket: &TcpListener| Holder {
            pid: sleeper.pid(),
            inodes: HashSet::from([inode(socket)]),
        };
        let [one, other] = [0, 1].map(|index| holder(&strangers[index], &sockets[index]));
        let ours = Holder { pid: Pid::ours(), inodes: HashSet::new() };
        let sibling = holder(&sibling, &sockets[0]);
        let worker = holder(&worker, &sockets[1]);
        let groups = |holders: &[&Holder]| {
            related(&holders.iter().copied().cloned().collect::<Vec<_>>())
                .unwrap()
                .iter()
                .map(Vec::len)
                .collect::<Vec<_>>()
        };
        assert_eq!(groups(&[&one, &other]), [1, 1], "strangers");
        assert_eq!(
            groups(&[&one, &Holder { inodes: one.inodes.clone(), pid: other.pid }]),
            [2],
            "one socket"
        );
        assert_eq!(groups(&[&one, &worker]), [2], "workers of one master, with a socket each");
        assert_eq!(groups(&[&ours, &one, &other]), [3], "parent and children");
        assert_eq!(
            groups(&[&other, &sibling, &one]),
            [1, 2],
            "the sibling shares a socket with one of them"
        );
    }

    #[test]
    fn sets_of_ties_are_joined_transitively() {
        let pid = |number| Pid::new(number).unwrap();
        let mut groups = Groups::default();
        groups.join(Tie::Process(1), Tie::Workers(5, 0));
        groups.join(Tie::Process(2), Tie::Workers(6, 0));
        groups.join(Tie::Process(3), Tie::Workers(5, 0));
        assert_eq!(groups.of([1, 2, 3].map(pid).into_iter()), [vec![pid(1), pid(3)], vec![pid(2)]]);
        groups.join(Tie::Socket(SocketInode(9)), Tie::Workers(6, 0));
        groups.join(Tie::Process(1), Tie::Socket(SocketInode(9)));
        assert_eq!(groups.of([1, 2, 3].map(pid).into_iter()), [[1, 2, 3].map(pid).to_vec()]);
    }

    #[test]
    fn only_links_to_sockets_have_an_inode() {
        assert_eq!(socket_inode(Path::new("socket:[42]")), Some(SocketInode(42)));
        for link in ["pipe:[42]", "socket:[]", "socket:[4", "/socket:[42]", "anon_inode:[pidfd]"] {
            assert_eq!(socket_inode(Path::new(link)), None, "{link}");
        }
    }
}
