//! All processes at one look: who is whose child, as whom they run, and who are forks of each other.
//!
//! `/proc` says the same, at some 30 µs for each process; the kernel's own list costs a hundredth of that. A server decides how
//! many processes it has, and everybody else waits for whoever looks at them.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::OnceLock,
};

use super::{
    holders::all_pids,
    image::{self, Image},
    patience,
    process::{Pid, ProcessError, stat, status},
    sock_diag::SocketInode,
};

/// A process among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub pid: Pid,
    /// Its number in a PID namespace of its own.
    pub inside: Pid,
    /// Its parent, if that is one that we see.
    pub parent: Option<Pid>,
    /// Who began its session, likewise.
    pub session: Option<Pid>,
    /// Its effective user.
    pub user: u32,
    /// Its real user, whom it counts for.
    pub real_user: u32,
    /// How many threads it has.
    pub threads: u32,
    /// What it runs, as it was executed once; a kernel thread runs nothing.
    pub execution: Option<Execution>,
}

/// What tells one execution of a program from all others: forks have it in common (see [`Image`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Execution {
    /// The inode of the program's file, where that is known.
    pub program: u64,
    /// Where the kernel placed the program.
    pub code: u64,
    /// Where the kernel placed its stack.
    pub stack: u64,
}

/// The processes that there were at one moment.
#[derive(Debug, Default)]
pub struct ProcessTable(HashMap<Pid, Row>);

impl ProcessTable {
    /// Those that there are now.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub fn read() -> Result<Self, ProcessError> {
        let rows = match lists() {
            Some(lists) => lists.processes().map_err(ProcessError::List)?,
            None => all_pids()?.into_iter().filter_map(in_proc).collect(),
        };
        Ok(Self::of(rows))
    }

    /// These of them. A few are looked at one by one: that costs no more on a machine with many.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_these(pids: &[Pid]) -> Result<Self, ProcessError> {
        if pids.len() <= FEW || lists().is_none() {
            return Ok(Self::of(pids.iter().copied().filter_map(in_proc)));
        }
        let mut table = Self::read()?;
        let wanted: HashSet<Pid> = pids.iter().copied().collect();
        table.0.retain(|pid, _| wanted.contains(pid));
        Ok(table)
    }

    fn of(rows: impl IntoIterator<Item = Row>) -> Self {
        Self(rows.into_iter().map(|row| (row.pid, row)).collect())
    }

    /// What is known of a process.
    pub fn row(&self, pid: Pid) -> Option<&Row> {
        self.0.get(&pid)
    }

    /// All of them, in no particular order.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.values()
    }

    /// The parent of a process, the parent of that, and so on, as far as they can be seen.
    pub fn ancestors(&self, pid: Pid) -> Vec<Pid> {
        /// Nobody is nested as deep; it bounds a walk in a table that changed while it was read.
        const DEEPEST: usize = 256;
        let parent = |pid: &Pid| self.row(*pid)?.parent;
        std::iter::successors(parent(&pid), parent).take(DEEPEST).collect()
    }

    /// These processes and all that descend from them, in no particular order: by parents that live, and by the session that one of
    /// them began, which nobody can enter but by birth.
    pub fn with_descendants(&self, pids: &[Pid]) -> Vec<Pid> {
        let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
        for row in self.rows() {
            let of_session = row.session.filter(|session| Some(*session) != row.parent);
            for above in row.parent.into_iter().chain(of_session) {
                children.entry(above).or_default().push(row.pid);
            }
        }
        let (mut found, mut known) = (Vec::new(), HashSet::new());
        let mut next = pids.to_vec();
        while let Some(pid) = next.pop() {
            if known.insert(pid) {
                found.push(pid);
                next.extend(children.remove(&pid).unwrap_or_default());
            }
        }
        found
    }

    /// Those that were forked by one of these processes and lost their parent since: a daemon's second process, which the first
    /// one leaves behind. Only of such as have not executed another program.
    pub fn orphans_of(&self, pids: &[Pid]) -> Vec<Pid> {
        if !image::tells_forks() {
            return Vec::new();
        }
        let execution = |pid: &Pid| self.row(*pid)?.execution;
        let executions: HashSet<_> = pids.iter().filter_map(execution).collect();
        let is_fork = |row: &Row| row.execution.is_some_and(|it| executions.contains(&it));
        // Whose parent is one too has it still.
        let is_orphan = |row: &&Row| {
            let parent = row.parent.and_then(|parent| self.row(parent));
            is_fork(row) && !parent.is_some_and(is_fork)
        };
        let mut known: HashSet<Pid> = pids.iter().copied().collect();
        known.extend(self.above(pids));
        self.rows().filter(is_orphan).map(|it| it.pid).filter(|pid| !known.contains(pid)).collect()
    }

    /// The ancestors of all of these.
    fn above(&self, pids: &[Pid]) -> HashSet<Pid> {
        let mut found = HashSet::new();
        for pid in pids {
            // What is above one that is known already is known too.
            let mut next = self.row(*pid).and_then(|row| row.parent);
            while let Some(above) = next.filter(|above| found.insert(*above)) {
                next = self.row(above).and_then(|row| row.parent);
            }
        }
        found
    }

    /// Those of these processes that live and whose parent is none of them, in their order.
    pub fn roots(&self, pids: &[Pid]) -> Vec<Pid> {
        let known: HashSet<Pid> =
            pids.iter().copied().filter(|pid| self.row(*pid).is_some()).collect();
        let is_root = |pid: &&Pid| {
            let row = self.row(**pid);
            row.is_some_and(|row| row.parent.is_none_or(|parent| !known.contains(&parent)))
        };
        pids.iter().filter(is_root).copied().collect()
    }
}

/// Nothing of one that is gone, or not ours to see: then neither are its children.
fn in_proc(pid: Pid) -> Option<Row> {
    let about = status(pid).ok()?;
    let image = Image::of(pid).ok();
    let inside = about.nspid.as_ref().and_then(|numbers| Pid::new(*numbers.last()?));
    Some(Row {
        pid,
        inside: inside.unwrap_or(pid),
        parent: Pid::new(about.ppid),
        session: Pid::new(stat(pid).ok()?.session),
        user: about.euid,
        real_user: about.ruid,
        threads: u32::try_from(about.threads).unwrap_or(u32::MAX),
        execution: image.map(|it| Execution { program: 0, code: it.code, stack: it.stack }),
    })
}

/// What the kernel lists of all processes at once.
pub trait KernelLists: Send + Sync {
    /// All of them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn processes(&self) -> io::Result<Vec<Row>>;

    /// Which of the wanted sockets they have open.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn open_sockets(&self, wanted: &HashSet<SocketInode>) -> io::Result<OpenSockets>;

    /// Which of them one process has open, if it is there.
    ///
    /// # Errors
    ///
    /// As [`Self::open_sockets`].
    fn open_sockets_of(&self, pid: Pid, wanted: &HashSet<SocketInode>) -> io::Result<OpenSockets>;
}

/// The sockets that processes have open, and where more can be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OpenSockets {
    sockets: HashMap<Pid, HashSet<SocketInode>>,
    /// By what tells open files apart.
    rings: HashMap<u64, Ring>,
}

/// A ring of io_uring, which can have sockets that have no descriptor. Others may have inherited it, and anybody may have as many
/// descriptors of it as he likes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// Where it can be read: as this descriptor of this process.
    pub(super) seen_as: (Pid, u64),
    /// All that have it open.
    pub(super) pids: HashSet<Pid>,
}

impl OpenSockets {
    /// A process has this socket open.
    pub fn add(&mut self, pid: Pid, socket: SocketInode) {
        self.sockets.entry(pid).or_default().insert(socket);
    }

    /// A process has this ring open, as this descriptor.
    pub fn add_ring(&mut self, ring: u64, pid: Pid, descriptor: u64) {
        /// Each is read: servers have one for each thread.
        const MOST: usize = 4096;
        if self.rings.len() >= MOST && !self.rings.contains_key(&ring) {
            return;
        }
        let new = || Ring { seen_as: (pid, descriptor), pids: HashSet::new() };
        self.rings.entry(ring).or_insert_with(new).pids.insert(pid);
    }

    pub(super) fn into_parts(self) -> (HashMap<Pid, HashSet<SocketInode>>, Vec<Ring>) {
        (self.sockets, self.rings.into_values().collect())
    }
}

static LISTS: OnceLock<Box<dyn KernelLists>> = OnceLock::new();

/// From now on many processes are looked at by these lists.
pub fn look_by(lists: Box<dyn KernelLists>) {
    // The first ones are as good as any later ones.
    let _: Result<(), _> = LISTS.set(lists);
}

/// Nothing where there are none: before the kernel programs are loaded, and on a thread that has nothing of ours open.
pub(super) fn lists() -> Option<&'static dyn KernelLists> {
    LISTS.get().filter(|_| !patience::is_worker()).map(|lists| &**lists)
}

/// So many processes are looked at one by one.
pub(super) const FEW: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::new(number).unwrap()
    }

    fn row(number: i32, parent: i32, session: i32, execution: u64) -> Row {
        Row {
            pid: pid(number),
            parent: Pid::new(parent),
            session: Pid::new(session),
            inside: pid(number),
            user: 0,
            real_user: 0,
            threads: 1,
            execution: Some(Execution { program: 1, code: 2, stack: execution }),
        }
    }

    fn sorted(mut pids: Vec<Pid>) -> Vec<i32> {
        pids.sort_unstable();
        pids.into_iter().map(Pid::get).collect()
    }

    #[test]
    fn who_descends_does_so_by_parents_or_by_a_session() {
        let table = ProcessTable::of([
            row(10, 1, 10, 0),
            row(11, 10, 10, 0),
            row(12, 11, 12, 0),
            row(13, 1, 12, 0),
            row(14, 1, 14, 0),
        ]);
        assert_eq!(sorted(table.with_descendants(&[pid(10)])), [10, 11, 12, 13]);
        assert_eq!(table.ancestors(pid(12)), [11, 10, 1].map(pid));
        assert_eq!(table.roots(&[11, 12, 13, 99].map(pid)), [11, 13].map(pid));
    }

    #[test]
    fn an_orphan_is_a_fork_without_its_parent_that_is_not_above() {
        if !image::tells_forks() {
            return;
        }
        let table = ProcessTable::of([
            row(9, 1, 9, 7),
            row(10, 9, 9, 7),
            row(11, 1, 9, 7),
            row(12, 11, 9, 7),
            row(13, 1, 9, 8),
        ]);
        assert_eq!(sorted(table.orphans_of(&[pid(10)])), [11], "12 has its parent, 9 is above");
    }

    #[test]
    fn a_circle_in_a_table_that_changed_while_it_was_read_ends() {
        let table = ProcessTable::of([row(10, 11, 1, 0), row(11, 10, 1, 0)]);
        assert_eq!(table.ancestors(pid(10)).len(), 256);
        assert_eq!(sorted(table.with_descendants(&[pid(10)])), [10, 11]);
        assert_eq!(table.above(&[pid(10)]).len(), 2);
    }
}
