//! Who the server is, among all processes that hold a listener; in doubt nobody is.

use std::collections::{HashMap, HashSet};

use agent_api::{Problem, ProblemKind};

use super::{
    asked::Asked,
    found::{Found, describe},
};
use crate::host::{
    accepting::accepts,
    holders, kin, master,
    process::{Pid, Process},
    process_table::ProcessTable,
    servers::{self, Facts, Obstacle, Server},
    sock_diag::{self, Listener, SocketInode},
};

/// The server that has these listeners.
///
/// # Errors
///
/// When no process holds them, or it is not certain which of those that do is the server; `pid` decides that.
pub(in crate::daemon) fn server_of(
    listeners: Vec<Listener>,
    pid: Option<i32>,
    asked: Asked,
) -> Result<Found, Problem> {
    let inodes: HashSet<_> = listeners.iter().map(|listener| listener.inode).collect();
    let holders = holders::holders(&inodes)?;
    if holders.found.is_empty() {
        return Err(nobody_holds(&listeners, holders.refused));
    }
    let all = sock_diag::listeners()?;
    let facts = Facts::of(&holders.found, &all)?;
    refuse_crowd(&facts, &listeners)?;
    let owners: HashMap<_, _> = listeners.iter().map(|it| (it.inode, it.uid)).collect();
    let servers = servers::servers(&facts, &owners, |it| accepts(it.pid, &it.sockets));
    let candidates = Candidates { ports: ports_of(&listeners), facts, owners, servers };
    let mut chosen = match pid {
        Some(pid) => candidates.named(pid)?,
        None => candidates.only()?,
    };
    chosen.extend(candidates.master_of(&chosen, &all, asked)?);
    Ok(candidates.found(listeners, &chosen))
}

/// The processes that serve these listeners as far as it shows, where nobody can be asked: those that accept, or, with no
/// sign of it, all that may be a server.
///
/// # Errors
///
/// When the processes cannot be listed.
pub(in crate::daemon) fn likely(listeners: &[Listener]) -> Result<Vec<Pid>, Problem> {
    let inodes = listeners.iter().map(|listener| listener.inode).collect();
    let facts = Facts::of(&holders::holders(&inodes)?.found, &sock_diag::listeners()?)?;
    refuse_crowd(&facts, listeners)?;
    let owners = listeners.iter().map(|it| (it.inode, it.uid)).collect();
    let shows = |facts: &Facts| accepts(facts.pid, &facts.sockets);
    let mut servers = servers::servers(&facts, &owners, shows);
    servers.retain(|server| server.obstacle.is_none());
    let accepting =
        |server: &Server| facts.iter().filter(|it| server.pids.contains(&it.pid)).any(shows);
    if servers.len() > 1 && servers.iter().any(accepting) {
        servers.retain(accepting);
    }
    Ok(servers.into_iter().flat_map(|server| server.pids).collect())
}

/// Those listeners that are on a port which a process, or a descendant of it, listens on.
///
/// # Errors
///
/// When the processes cannot be listed.
pub(in crate::daemon) fn on_ports_of(
    listeners: Vec<Listener>,
    pid: Pid,
) -> Result<Vec<Listener>, Problem> {
    let inodes = listeners.iter().map(|listener| listener.inode).collect();
    let holders =
        holders::holders_among(ProcessTable::read()?.with_descendants(&[pid]), &inodes)?.found;
    let held: HashSet<_> = holders.into_iter().flat_map(|holder| holder.inodes).collect();
    let ports: HashSet<_> =
        listeners.iter().filter(|it| held.contains(&it.inode)).map(|it| it.port).collect();
    Ok(listeners.into_iter().filter(|it| ports.contains(&it.port)).collect())
}

/// All processes that hold the listeners, split into servers.
struct Candidates {
    /// In words.
    ports: String,
    facts: Vec<Facts>,
    /// Who made each listener.
    owners: HashMap<SocketInode, u32>,
    servers: Vec<Server>,
}

impl Candidates {
    /// The one server that there is.
    fn only(&self) -> Result<Vec<Pid>, Problem> {
        match &self.servers[..] {
            [] => Err(Problem::new(
                ProblemKind::Preflight,
                "the server has just ended, or its first thread has ended before the others (`pthread_exit`)",
            )
            .fix("start it again: what a next one would be given can no longer be seen")),
            [Server { pids, obstacle: None }] => Ok(pids.clone()),
            [Server { pids, obstacle: Some(obstacle) }] => Err(self.refusal(pids[0], *obstacle)),
            _ => Err(self.doubt()),
        }
    }

    /// The one that this process is of, or, if it holds nothing, is the master of; with the descendants to which it passed
    /// the listener.
    fn named(&self, pid: i32) -> Result<Vec<Pid>, Problem> {
        let strange = |server: &&Server| matches!(server.obstacle, Some(Obstacle::Stranger { .. }));
        let of_it = self.servers.iter().find(|it| it.pids.iter().any(|it| it.get() == pid));
        let mut chosen = match of_it {
            Some(Server { pids, obstacle: Some(obstacle @ Obstacle::Stranger { .. }) }) => {
                return Err(self.refusal(pids[0], *obstacle));
            }
            Some(server) => server.pids.clone(),
            None => vec![self.master(pid)?],
        };
        let strangers: HashSet<Pid> =
            self.servers.iter().filter(strange).flat_map(|it| &it.pids).copied().collect();
        let born = self.born_of(pid).map(|facts| facts.pid);
        let born: Vec<_> =
            born.filter(|it| !strangers.contains(it) && !chosen.contains(it)).collect();
        chosen.extend(born);
        Ok(chosen)
    }

    /// One that holds no listener, and would start again what ends; not who has started other servers as well.
    fn master_of(
        &self,
        chosen: &[Pid],
        all: &[Listener],
        asked: Asked,
    ) -> Result<Option<Pid>, Problem> {
        let of_server = || self.facts.iter().filter(|it| chosen.contains(&it.pid));
        let mut owners =
            of_server().flat_map(|it| &it.sockets).filter_map(|it| self.owners.get(it));
        let may_be = |pid| asked.may_be_master(pid).unwrap_or(false);
        let roots = holders::roots(chosen)?;
        let Some(master) = master::master_of(&roots, owners.next().copied(), may_be)? else {
            return Ok(None);
        };
        let inodes = all.iter().map(|it| it.inode).collect();
        let table = ProcessTable::read()?;
        let of_server: HashSet<Pid> = table.with_descendants(chosen).into_iter().collect();
        let mut others = table.with_descendants(&[master]);
        others.retain(|pid| !of_server.contains(pid));
        let serves_nothing_else = holders::holders_among(others, &inodes)?.found.is_empty();
        Ok(serves_nothing_else.then_some(master))
    }

    fn born_of(&self, pid: i32) -> impl Iterator<Item = &Facts> {
        self.facts.iter().filter(move |it| it.ancestors.iter().any(|it| it.get() == pid))
    }

    /// A process that holds nothing, and is the model of the next launch all the same: only as the user who made the
    /// listeners, or where that was root.
    fn master(&self, pid: i32) -> Result<Pid, Problem> {
        let mut children = self.born_of(pid).peekable();
        let of_one = self
            .servers
            .iter()
            .find(|server| children.peek().is_some_and(|first| server.pids.contains(&first.pid)));
        let (Some(master), Some(server)) = (Pid::new(pid), of_one) else {
            return Err(self.holds_nothing(pid));
        };
        // Who started several servers, as a shell does, is not the master of any.
        if self.born_of(pid).any(|child| !server.pids.contains(&child.pid)) {
            return Err(self.holds_nothing(pid));
        }
        let uid = kin::user_of(master)?;
        let owners = children.flat_map(|it| &it.sockets).filter_map(|it| self.owners.get(it));
        match owners.copied().find(|owner| *owner != ROOT && *owner != uid) {
            Some(owner) => Err(self.refusal(master, Obstacle::Stranger { owner })),
            None => Ok(master),
        }
    }

    /// The chosen processes, and what is left alone.
    fn found(&self, mut listeners: Vec<Listener>, chosen: &[Pid]) -> Found {
        let own: HashSet<_> = chosen.iter().copied().collect();
        let (of_server, others): (Vec<_>, Vec<_>) =
            self.facts.iter().partition(|facts| own.contains(&facts.pid));
        let held: HashSet<_> = of_server.iter().flat_map(|facts| &facts.sockets).collect();
        let (bystanders, rivals): (Vec<_>, Vec<_>) =
            others.iter().partition(|it| it.sockets.iter().any(|socket| held.contains(socket)));
        listeners.retain(|listener| held.contains(&listener.inode));
        let pids = |facts: Vec<&&Facts>| facts.iter().map(|it| it.pid).collect();
        Found {
            listeners,
            pids: chosen.to_vec(),
            bystanders: pids(bystanders),
            rivals: pids(rivals),
        }
    }

    fn holds_nothing(&self, pid: i32) -> Problem {
        let lives = Pid::new(pid).is_some_and(|pid| Process::open(pid).is_ok());
        let message = match lives {
            true => format!(
                "process {pid} does not hold a listener on port {}, nor is it the master of one server that does",
                self.ports
            ),
            false => format!("there is no process {pid}"),
        };
        let these: Vec<_> = self.servers.iter().map(|it| describe(it.pids[0])).collect();
        Problem::new(ProblemKind::Preflight, message).fix(format!("these do: {}", these.join(", ")))
    }

    fn refusal(&self, pid: Pid, obstacle: Obstacle) -> Problem {
        let (why, fix) = match obstacle {
            Obstacle::First => (
                "which is the first process here: all others end with it".to_owned(),
                "if it keeps the listener for a service (socket activation), start that service, and name its process with \
                 `--pid`; if it is the server itself, in a container, say `--pid 1`"
                    .to_owned(),
            ),
            Obstacle::Stranger { owner } => (
                format!(
                    "is not of uid {owner}, who made the listener and may have passed it to anybody: it is neither copied nor \
                     told to end"
                ),
                format!("name a process of uid {owner} with `--pid`, or let root make the listener"),
            ),
            Obstacle::Supervisor(name) => (
                format!("which is {name}: all that it runs would end with it"),
                format!(
                    "let the server listen by itself (with pm2: fork mode), or run it without {name}; if {name} runs nothing \
                     else, say `--pid {pid}`"
                ),
            ),
        };
        let holds = match obstacle {
            Obstacle::Stranger { .. } => format!("process {} ", describe(pid)),
            Obstacle::First | Obstacle::Supervisor(_) => {
                format!(
                    "the listener on port {} is held by process {}, ",
                    self.ports,
                    describe(pid)
                )
            }
        };
        Problem::new(ProblemKind::Preflight, holds + &why).fix(fix)
    }

    /// Several servers, of which one is to be named.
    fn doubt(&self) -> Problem {
        let shared = |facts: &Facts, server: &Server| {
            !server.pids.contains(&facts.pid)
                && self
                    .facts
                    .iter()
                    .filter(|it| server.pids.contains(&it.pid))
                    .any(|it| !it.sockets.is_disjoint(&facts.sockets))
        };
        let one_listener =
            self.servers.iter().any(|server| self.facts.iter().any(|it| shared(it, server)));
        let described: Vec<_> = self.servers.iter().map(|it| self.described(it)).collect();
        let message = if one_listener {
            format!(
                "it is not certain which of the processes that hold the listener on port {} is the server: {}",
                self.ports,
                described.join("; ")
            )
        } else {
            format!(
                "{} unrelated servers hold the port: {}",
                self.servers.len(),
                described.join("; ")
            )
        };
        let fix = match self.likely() {
            Some(pid) if one_listener => format!(
                "say which one with `--pid`, as in `--pid {pid}`: the others are neither copied nor told to end"
            ),
            _ => "say which one with `--pid`".to_owned(),
        };
        Problem::new(ProblemKind::Preflight, message).fix(fix)
    }

    /// The only server that shows that it accepts, and has nothing against it.
    fn likely(&self) -> Option<Pid> {
        let mut accepting = self.servers.iter().filter(|server| {
            let mut facts = self.facts.iter().filter(|it| server.pids.contains(&it.pid));
            server.obstacle.is_none() && facts.any(|it| accepts(it.pid, &it.sockets))
        });
        let only = accepting.next()?;
        accepting.next().is_none().then(|| only.pids[0])
    }

    fn described(&self, server: &Server) -> String {
        let facts: Vec<_> = self.facts.iter().filter(|it| server.pids.contains(&it.pid)).collect();
        let Some(first) = facts.first() else { return String::new() };
        let mut text = format!("{}, uid {}", describe(first.pid), first.uid);
        let others: Vec<_> =
            facts.iter().flat_map(|it| &it.other_ports).map(ToString::to_string).collect();
        if !others.is_empty() {
            text.push_str(&format!(", also on port {}", others.join(", ")));
        }
        match server.obstacle {
            Some(Obstacle::First) => text.push_str(", the first process here"),
            Some(Obstacle::Stranger { owner }) => {
                text.push_str(&format!(", but uid {owner} made the listener"));
            }
            Some(Obstacle::Supervisor(name)) => text.push_str(&format!(", which is {name}")),
            None => {}
        }
        if facts.iter().any(|it| accepts(it.pid, &it.sockets)) {
            text.push_str(", accepts");
        }
        text
    }
}

/// Each of them is compared with each other one, except forks, of which one stands for all.
fn refuse_crowd(facts: &[Facts], listeners: &[Listener]) -> Result<(), Problem> {
    const MOST: usize = 1000;
    let images = facts.iter().map(|it| &it.image).collect::<HashSet<_>>().len();
    if images <= MOST {
        return Ok(());
    }
    let message = format!(
        "{images} processes that were executed each by itself hold the listener on port {}, which are too many to tell which is \
         the server (at most {MOST})",
        ports_of(listeners)
    );
    Err(Problem::new(ProblemKind::Preflight, message)
        .fix("have the server pass its listener to fewer of the programs that it starts"))
}

/// The ports of these listeners in words, each once.
fn ports_of(listeners: &[Listener]) -> String {
    let mut ports: Vec<_> = listeners.iter().map(|listener| listener.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A listener without a process: it can be out of sight, or have none.
fn nobody_holds(listeners: &[Listener], refused: usize) -> Problem {
    let problem = Problem::new(
        ProblemKind::Preflight,
        format!("no process is seen to hold the listener on port {}", ports_of(listeners)),
    );
    if refused > 0 {
        return problem.fix(format!(
            "{refused} processes may not be looked at: run with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
        ));
    }
    problem.fix(if kin::sees_all_processes() {
        "all processes of this machine were looked at, and rings of io_uring too: the kernel itself has it (as for NFS), a ring \
         without a descriptor, or a message under way in a Unix socket; start the server so that its process keeps one"
    } else {
        "its process may be outside of the PID namespace of this agent: then run the agent where it can be seen, as on the host; \
         or the kernel has it, or a message under way in a Unix socket: then start the server \
         so that its process keeps one"
    })
}

const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::host::image::Image;

    /// So many processes, executed each by itself, or all of them forks.
    fn holders(count: u64, are_forks: bool) -> Vec<Facts> {
        let facts = |number: u64| Facts {
            pid: Pid::new(i32::try_from(number).unwrap() + 2).unwrap(),
            ancestors: Vec::new(),
            uid: 33,
            image: Image {
                program: "/bin/python".into(),
                code: 1,
                stack: if are_forks { 0 } else { number },
            },
            command: Vec::new(),
            sockets: HashSet::from([SocketInode(7)]),
            other_ports: BTreeSet::new(),
            supervisor: None,
        };
        (0..count).map(facts).collect()
    }

    #[test]
    fn thousands_of_forks_are_compared_and_thousands_of_programs_are_not() {
        assert!(refuse_crowd(&holders(5_000, true), &[]).is_ok());
        assert!(refuse_crowd(&holders(1_000, false), &[]).is_ok());
        let problem = refuse_crowd(&holders(1_001, false), &[]).unwrap_err();
        assert!(problem.message.starts_with("1001 processes"), "{problem:?}");
    }
}
