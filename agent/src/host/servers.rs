//! Which of the processes that hold a listener are one server, and which only have it open.
//!
//! Whoever holds a listener is not the server for that: a super-server passes it on, a daemon inherited it, an init keeps
//! it for a service to come. Two holders are one server only where nothing speaks against it:
//!
//! ```text
//!   one program image            a master and the workers that it forked (nginx, apache, puma)
//!   kin or one socket, and       a master and workers that were executed anew (uvicorn), workers with a listener each
//!     one program, one user,
//!     no ports that only the one that passes the listener on serves
//!   born of who accepts, and      a child that inherited the listener without a use for it
//!     it does not accept itself
//! ```

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    path::PathBuf,
};

use super::{
    holders::{Holder, holders_among},
    image::{self, Image},
    os_text::OsText,
    process::{Pid, ProcessError, command_line},
    process_table::{Execution, ProcessTable, Row},
    sock_diag::{Listener, SocketInode},
    supervisor::Kind,
};

/// A process that holds a listener, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub pid: Pid,
    /// Its parent, the parent of that, and so on.
    pub ancestors: Vec<Pid>,
    /// Its effective user.
    pub uid: u32,
    /// Its program.
    pub image: Image,
    /// Its arguments.
    pub command: Vec<OsText>,
    /// The listeners that it holds.
    pub sockets: HashSet<SocketInode>,
    /// Other ports that it listens on.
    pub other_ports: BTreeSet<u16>,
    /// The supervisor that it is, if it is one.
    pub supervisor: Option<&'static str>,
}

/// Processes that are one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// Them, in the order given.
    pub pids: Vec<Pid>,
    /// What keeps them from being one.
    pub obstacle: Option<Obstacle>,
}

/// Why a process that holds a listener is not taken for a server, whatever else is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// It is the first process here: all others end with it.
    First,
    /// It is another user than the one that made the listener, who may have passed it to anybody.
    Stranger {
        /// Who made the listener.
        owner: u32,
    },
    /// It is a supervisor of this name: other servers end with it.
    Supervisor(&'static str),
}

impl Facts {
    /// What is known of these holders; those that are gone are left out. `all` are all listeners there are.
    ///
    /// # Errors
    ///
    /// When a process that lives cannot be read.
    pub fn of(holders: &[Holder], all: &[Listener]) -> Result<Vec<Self>, ProcessError> {
        let wanted: HashSet<u16> =
            ports_of(all, holders.iter().flat_map(|it| &it.inodes)).collect();
        let inodes = all.iter().map(|listener| listener.inode).collect();
        let held = holders_among(holders.iter().map(|it| it.pid), &inodes)?.found;
        let held: HashMap<Pid, _> = held.into_iter().map(|it| (it.pid, it.inodes)).collect();
        let table = ProcessTable::read()?;
        let mut programs = HashMap::new();
        let mut found = Vec::with_capacity(holders.len());
        for holder in holders {
            let ports = ports_of(all, held.get(&holder.pid).into_iter().flatten());
            let other_ports = ports.filter(|port| !wanted.contains(port)).collect();
            match Self::read(&table, &mut programs, holder, other_ports) {
                Ok(facts) => found.push(facts),
                Err(ProcessError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn read(
        table: &ProcessTable,
        programs: &mut HashMap<Execution, PathBuf>,
        holder: &Holder,
        other_ports: BTreeSet<u16>,
    ) -> Result<Self, ProcessError> {
        let Holder { pid, inodes } = holder;
        let gone = ProcessError::Gone { pid: *pid };
        let Row { user, execution: Some(execution), .. } = *table.row(*pid).ok_or(gone)? else {
            return Err(ProcessError::Gone { pid: *pid });
        };
        let program = match programs.entry(execution) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => new.insert(image::program(*pid)?).clone(),
        };
        let command = command_line(*pid)?;
        Ok(Self {
            pid: *pid,
            ancestors: table.ancestors(*pid),
            uid: user,
            image: Image { program, code: execution.code, stack: execution.stack },
            supervisor: Kind::by_words(&command).map(|kind| kind.name),
            command,
            sockets: inodes.clone(),
            other_ports,
        })
    }

    fn obstacle(&self, owners: &HashMap<SocketInode, u32>) -> Option<Obstacle> {
        if self.pid.get() == FIRST {
            return Some(Obstacle::First);
        }
        // Who is root may have become anybody since it made the listener, nobody else may.
        let strange = |owner: &&u32| **owner != ROOT && **owner != self.uid;
        let owner = self.sockets.iter().filter_map(|inode| owners.get(inode)).find(strange);
        let stranger = owner.map(|owner| Obstacle::Stranger { owner: *owner });
        stranger.or(self.supervisor.map(Obstacle::Supervisor))
    }

    fn is_one_with(&self, other: &Self) -> bool {
        self.image == other.image
            || self.is_tied_to(other)
                && self.uid == other.uid
                && self.image.program == other.image.program
                && !self.serves_more_than(other)
                && !other.serves_more_than(self)
    }

    /// By birth, by a socket, or as children of one process with the same command line, as the workers of a master are that
    /// holds no listener itself. A common session or process group ties nothing: one shell starts many servers.
    fn is_tied_to(&self, other: &Self) -> bool {
        self.ancestors.first() == Some(&other.pid)
            || other.ancestors.first() == Some(&self.pid)
            || !self.sockets.is_disjoint(&other.sockets)
            || self.is_sibling_of(other)
    }

    /// Orphans have the same parent without being siblings, and a process that is just being given its program has no
    /// command line.
    fn is_sibling_of(&self, other: &Self) -> bool {
        self.ancestors.first().is_some_and(|parent| parent.get() != FIRST)
            && self.ancestors.first() == other.ancestors.first()
            && self.command == other.command
            && !self.command.is_empty()
    }

    /// Whether it passed the listener on, and serves ports that the other knows nothing of.
    fn serves_more_than(&self, other: &Self) -> bool {
        other.ancestors.contains(&self.pid) && !self.other_ports.is_subset(&other.other_ports)
    }
}

/// Splits holders into servers. `owners` made the listeners; `accepts` is asked where there is more than one.
pub fn servers(
    facts: &[Facts],
    owners: &HashMap<SocketInode, u32>,
    accepts: impl Fn(&Facts) -> bool,
) -> Vec<Server> {
    let servers = tied(facts, owners);
    if servers.len() < 2 {
        return servers;
    }
    let accepting =
        |server: &Server| facts.iter().filter(|it| server.pids.contains(&it.pid)).any(&accepts);
    let (accepting, mut idle): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|server| server.obstacle.is_none() && accepting(server));
    let mut found = Vec::new();
    for mut server in accepting {
        let (born, others): (Vec<_>, Vec<_>) = idle.into_iter().partition(|it: &Server| {
            let mut of_it = facts.iter().filter(|facts| it.pids.contains(&facts.pid));
            it.obstacle.is_none()
                && of_it.all(|it| it.ancestors.iter().any(|pid| server.pids.contains(pid)))
        });
        server.pids.extend(born.into_iter().flat_map(|it| it.pids));
        found.push(server);
        idle = others;
    }
    found.extend(idle);
    found.sort_by_key(|server| facts.iter().position(|it| server.pids.contains(&it.pid)));
    found
}

fn tied(facts: &[Facts], owners: &HashMap<SocketInode, u32>) -> Vec<Server> {
    let obstacles: Vec<_> = facts.iter().map(|it| it.obstacle(owners)).collect();
    // Which server each one is of, by the place of its first process.
    let mut first: Vec<usize> = (0..facts.len()).collect();
    join_forks(&mut first, facts, &obstacles);
    for (later, facts_of_later) in facts.iter().enumerate() {
        for earlier in 0..later {
            let one = first[earlier] != first[later]
                && obstacles[earlier] == obstacles[later]
                && facts[earlier].is_one_with(facts_of_later);
            if one {
                let (from, to) =
                    (first[earlier].max(first[later]), first[earlier].min(first[later]));
                first.iter_mut().filter(|it| **it == from).for_each(|it| *it = to);
            }
        }
    }
    let mut found: Vec<(usize, Server)> = Vec::new();
    for (place, facts) in facts.iter().enumerate() {
        match found.iter_mut().find(|(it, _)| *it == first[place]) {
            Some((_, server)) => server.pids.push(facts.pid),
            None => {
                let server = Server { pids: vec![facts.pid], obstacle: obstacles[place] };
                found.push((first[place], server));
            }
        }
    }
    found.into_iter().map(|(_, server)| server).collect()
}

/// Joins those of one image, of which there may be thousands, without comparing each with each.
fn join_forks(first: &mut [usize], facts: &[Facts], obstacles: &[Option<Obstacle>]) {
    let mut known = HashMap::new();
    for (place, facts) in facts.iter().enumerate() {
        first[place] = *known.entry((&facts.image, obstacles[place])).or_insert(place);
    }
}

fn ports_of<'a>(
    all: &'a [Listener],
    inodes: impl Iterator<Item = &'a SocketInode>,
) -> impl Iterator<Item = u16> {
    let inodes: HashSet<_> = inodes.copied().collect();
    all.iter().filter(move |it| inodes.contains(&it.inode)).map(|listener| listener.port)
}

const FIRST: i32 = 1;
const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: SocketInode = SocketInode(7);
    const OTHER: SocketInode = SocketInode(8);

    /// A process of `python`, executed by its own, of user 33, that holds [`SOCKET`].
    fn process(number: i32, parent: i32) -> Facts {
        let pid = |number| Pid::new(number).unwrap();
        Facts {
            pid: pid(number),
            ancestors: [parent, 1].map(pid).to_vec(),
            uid: 33,
            image: Image {
                program: "/bin/python".into(),
                code: 1,
                stack: number.unsigned_abs().into(),
            },
            command: vec![format!("python {number}").as_str().into()],
            sockets: HashSet::from([SOCKET]),
            other_ports: BTreeSet::new(),
            supervisor: None,
        }
    }

    /// How many processes each server has, by a listener that this user made.
    fn sizes(facts: &[Facts], owner: u32) -> Vec<usize> {
        let owners = HashMap::from([(SOCKET, owner), (OTHER, owner)]);
        servers(facts, &owners, |_| false).iter().map(|server| server.pids.len()).collect()
    }

    #[test]
    fn a_child_that_only_inherited_the_listener_is_of_the_server_that_accepts() {
        let image = Image { program: "/bin/sleep".into(), code: 1, stack: 11 };
        let facts = [process(10, 9), Facts { image, ..process(11, 10) }];
        let owners = HashMap::from([(SOCKET, 33)]);
        let sizes = |accepting: &[i32]| {
            let found = servers(&facts, &owners, |it| accepting.contains(&it.pid.get()));
            found.iter().map(|server| server.pids.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[10]), [2]);
        assert_eq!(sizes(&[11]), [1, 1], "its parent passed it on");
        assert_eq!(sizes(&[10, 11]), [1, 1]);
        assert_eq!(sizes(&[]), [1, 1], "nobody knows");
    }

    #[test]
    fn a_fork_is_of_its_master_s_server_whoever_it_became() {
        let master = Facts { uid: 0, other_ports: BTreeSet::from([443]), ..process(10, 9) };
        let worker = Facts { image: master.image.clone(), ..process(11, 10) };
        assert_eq!(sizes(&[master, worker], 0), [2]);
    }

    #[test]
    fn workers_that_were_executed_anew_are_of_their_master_s_server() {
        assert_eq!(sizes(&[process(10, 9), process(11, 10), process(12, 10)], 33), [3]);
    }

    #[test]
    fn a_super_server_is_not_what_it_passes_its_listener_to() {
        let child = process(11, 10);
        let serves_more = Facts { other_ports: BTreeSet::from([8081]), ..process(10, 9) };
        assert_eq!(sizes(&[serves_more, child.clone()], 33), [1, 1], "it serves another port");
        let grandparent = Facts { other_ports: BTreeSet::from([8081]), ..process(9, 8) };
        let mut grandchild = process(12, 11);
        grandchild.ancestors.insert(1, grandparent.pid);
        assert_eq!(sizes(&[grandparent, grandchild], 33), [1, 1], "and so does one further up");
        let other_user = Facts { uid: 0, ..process(10, 9) };
        assert_eq!(sizes(&[other_user, child.clone()], 0), [1, 1], "it is another user");
        let image = Image { program: "/sbin/inetd".into(), code: 1, stack: 10 };
        let other_program = Facts { image, ..process(10, 9) };
        assert_eq!(sizes(&[other_program, child], 33), [1, 1], "it is another program");
    }

    #[test]
    fn a_worker_that_serves_more_than_its_master_is_of_its_server() {
        let worker = Facts { other_ports: BTreeSet::from([9100]), ..process(11, 10) };
        assert_eq!(sizes(&[process(10, 9), worker], 33), [2]);
    }

    #[test]
    fn workers_of_one_master_with_a_listener_each_are_one_server() {
        let worker = |number, command: &str| Facts {
            command: vec![command.into()],
            sockets: HashSet::from([SocketInode(number)]),
            ..process(i32::try_from(number).unwrap(), 9)
        };
        assert_eq!(sizes(&[worker(10, "a"), worker(11, "a"), worker(12, "b")], 33), [2, 1]);
        let orphan =
            |number| Facts { ancestors: vec![Pid::new(1).unwrap()], ..worker(number, "a") };
        assert_eq!(sizes(&[orphan(10), orphan(11)], 33), [1, 1], "init has many children");
    }

    #[test]
    fn the_first_process_strangers_and_supervisors_are_kept_apart() {
        let obstacles = |facts: &[Facts], owner| {
            let owners = HashMap::from([(SOCKET, owner)]);
            let found = servers(facts, &owners, |_| false);
            found.iter().map(|server| server.obstacle).collect::<Vec<_>>()
        };
        let init = Facts { ancestors: Vec::new(), ..process(1, 1) };
        let child = Facts { image: init.image.clone(), ..process(11, 1) };
        assert_eq!(obstacles(&[init, child.clone()], 33), [Some(Obstacle::First), None]);
        // A user may pass its listener to whomever it likes.
        let root = Facts { uid: 0, image: child.image.clone(), ..process(12, 11) };
        let stranger = Some(Obstacle::Stranger { owner: 33 });
        assert_eq!(obstacles(&[child, root.clone()], 33), [None, stranger]);
        assert_eq!(obstacles(&[root], 0), [None], "its own");
        let supervisor = Facts { supervisor: Some("pm2"), ..process(10, 9) };
        let both = obstacles(&[supervisor, process(11, 10)], 33);
        assert_eq!(both, [Some(Obstacle::Supervisor("pm2")), None]);
    }

    #[test]
    fn sets_are_joined_transitively() {
        let with = |number, sockets: &[SocketInode]| Facts {
            sockets: sockets.iter().copied().collect(),
            ..process(number, number + 100)
        };
        let facts = [with(10, &[SOCKET]), with(11, &[OTHER]), with(12, &[SOCKET, OTHER])];
        assert_eq!(sizes(&facts[..2], 33), [1, 1]);
        assert_eq!(sizes(&facts, 33), [3]);
    }
}
