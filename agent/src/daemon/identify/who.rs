//! Who the server is, among all processes that hold a listener; in doubt nobody is.

use std::collections::{HashMap, HashSet};

use super::{
    also::ports,
    asked::Asked,
    error::IdentifyError,
    found::{Found, describe},
};
use crate::host::{
    accepting::accepts,
    holders::{self, Holders},
    kin, master,
    process::{Pid, Process, ProcessError},
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
) -> Result<Found, IdentifyError> {
    let inodes: HashSet<_> = listeners.iter().map(|listener| listener.inode).collect();
    let holders = holders::holders(&inodes)?;
    if holders.found.is_empty() {
        return Err(IdentifyError::NobodyHolds {
            ports: ports(&listeners),
            refused: holders.refused,
            sees_all: kin::sees_all_processes(),
        });
    }
    let all = sock_diag::listeners()?;
    let facts = Facts::of(&holders.found, &all)?;
    refuse_crowd(&facts, &listeners)?;
    let owners: HashMap<_, _> = listeners.iter().map(|it| (it.inode, it.uid)).collect();
    let servers = servers::servers(&facts, &owners, |it| accepts(it.pid, &it.sockets));
    let candidates = Candidates { ports: ports(&listeners), facts, owners, servers };
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
pub(in crate::daemon) fn likely(listeners: &[Listener]) -> Result<Vec<Pid>, IdentifyError> {
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

/// Those listeners that are on a port which a process, or a descendant of it, listens on; and how many of these processes do not let
/// us look.
///
/// # Errors
///
/// When the processes cannot be listed.
pub(in crate::daemon) fn on_ports_of(
    listeners: Vec<Listener>,
    pid: Pid,
) -> Result<(Vec<Listener>, usize), ProcessError> {
    let inodes = listeners.iter().map(|listener| listener.inode).collect();
    let family = ProcessTable::read()?.with_descendants(&[pid]);
    let Holders { found, refused } = holders::holders_among(family, &inodes)?;
    let held: HashSet<_> = found.into_iter().flat_map(|holder| holder.inodes).collect();
    let ports: HashSet<_> =
        listeners.iter().filter(|it| held.contains(&it.inode)).map(|it| it.port).collect();
    Ok((listeners.into_iter().filter(|it| ports.contains(&it.port)).collect(), refused))
}

/// All processes that hold the listeners, split into servers.
struct Candidates {
    ports: Vec<u16>,
    facts: Vec<Facts>,
    /// Who made each listener.
    owners: HashMap<SocketInode, u32>,
    servers: Vec<Server>,
}

impl Candidates {
    /// The one server that there is.
    fn only(&self) -> Result<Vec<Pid>, IdentifyError> {
        match &self.servers[..] {
            [] => Err(IdentifyError::JustEnded),
            [Server { pids, obstacle: None }] => Ok(pids.clone()),
            [Server { pids, obstacle: Some(obstacle) }] => Err(self.refusal(pids[0], *obstacle)),
            _ => Err(self.doubt()),
        }
    }

    /// The one that this process is of, or, if it holds nothing, is the master of; with the descendants to which it passed
    /// the listener.
    fn named(&self, pid: i32) -> Result<Vec<Pid>, IdentifyError> {
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
    ) -> Result<Option<Pid>, ProcessError> {
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
    fn master(&self, pid: i32) -> Result<Pid, IdentifyError> {
        let mut children = self.born_of(pid).peekable();
        let of_one = self
            .servers
            .iter()
            .find(|server| children.peek().is_some_and(|first| server.pids.contains(&first.pid)));
        let (Some(master), Some(server)) = (Pid::new(pid), of_one) else {
            return Err(self.holds_nothing(pid)?);
        };
        // Who started several servers, as a shell does, is not the master of any.
        if self.born_of(pid).any(|child| !server.pids.contains(&child.pid)) {
            return Err(self.holds_nothing(pid)?);
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

    fn holds_nothing(&self, pid: i32) -> Result<IdentifyError, ProcessError> {
        let servers = self.servers.iter().map(|it| describe(it.pids[0])).collect();
        let there_is_none = match Pid::new(pid).map(Process::open) {
            None | Some(Err(ProcessError::Gone { .. })) => true,
            Some(opened) => opened.map(|_| false)?,
        };
        Ok(match there_is_none {
            true => IdentifyError::NoProcess { pid, servers },
            false => IdentifyError::HoldsNothing { pid, ports: self.ports.clone(), servers },
        })
    }

    fn refusal(&self, pid: Pid, obstacle: Obstacle) -> IdentifyError {
        let process = describe(pid);
        IdentifyError::Obstacle { pid, process, ports: self.ports.clone(), obstacle }
    }

    /// Several servers, of which one is to be named.
    fn doubt(&self) -> IdentifyError {
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
        let servers = self.servers.iter().map(|it| self.described(it)).collect();
        match one_listener {
            true => {
                IdentifyError::Doubt { ports: self.ports.clone(), servers, likely: self.likely() }
            }
            false => IdentifyError::Several { servers },
        }
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
fn refuse_crowd(facts: &[Facts], listeners: &[Listener]) -> Result<(), IdentifyError> {
    let processes = facts.iter().map(|it| &it.image).collect::<HashSet<_>>().len();
    match processes <= MOST_COMPARED {
        true => Ok(()),
        false => Err(IdentifyError::Crowd { processes, ports: ports(listeners) }),
    }
}

/// So many processes are compared with each other.
pub(super) const MOST_COMPARED: usize = 1000;

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
        let refused = refuse_crowd(&holders(1_001, false), &[]).unwrap_err();
        assert!(refused.to_string().starts_with("1001 processes"), "{refused:?}");
    }
}
