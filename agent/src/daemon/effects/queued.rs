//! Connections that nobody has accepted yet: when their listener closes, the kernel moves them (`migrate`), and we wake the
//! listener that got them.

use std::{
    collections::{BTreeSet, HashSet, hash_map::Entry},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use agent_api::EventKind;
use agent_ebpf::flow::GenerationKey;
use agent_rollout::{Generation, PortHold};
use agent_terms::{GenerationId, GenerationNumber, ServiceId};
use socket2::{Domain, Socket, Type};

use super::moves::Moves;
use crate::{
    daemon::{
        agent::{Agent, RETRY},
        looks::{attribute::address_of, observe::owner},
        step::{Step, take},
        world_error::WorldError,
    },
    datapath::Group,
    host::{
        holders,
        sock_diag::{self, Connection, Listener, SocketInode, Stage},
        syn_cookies,
    },
};

impl Agent {
    /// Gives every reuseport group of a service the program that moves its unaccepted connections. What it costs to fail is
    /// told and not an error: an upgrade waits until nothing is left to be moved.
    pub(in crate::daemon) fn guard_queues(&mut self, id: ServiceId) {
        let groups = self.groups_without_program(id);
        self.guard(id, groups);
    }

    /// The same, where a candidate has put a program of its own there.
    pub(in crate::daemon) fn guard_queues_again(&mut self, id: ServiceId) {
        let groups = self.groups_of(id);
        self.guard(id, groups);
    }

    fn guard(&mut self, id: ServiceId, groups: Result<BTreeSet<Group>, WorldError>) {
        if let Err(problem) = groups.and_then(|groups| self.try_to_guard(id, &groups)) {
            let name = self.record(id).service.name().clone();
            let why = format!(
                "if a listener closes early, the connections that it has not accepted cannot be moved: {}",
                problem.in_full()
            );
            self.journal.note(&name, None, EventKind::Warning, why);
        }
    }

    fn try_to_guard(&mut self, id: ServiceId, groups: &BTreeSet<Group>) -> Result<(), WorldError> {
        self.moves_of(id)?;
        for group in groups {
            take(Step::GuardQueue, || Ok(self.datapath.attach_migrate(group)?))?;
        }
        Ok(())
    }

    /// Known from the first look on: moves before this agent are told of by nobody.
    pub(in crate::daemon) fn moves_of(&mut self, id: ServiceId) -> Result<&mut Moves, WorldError> {
        Ok(match self.moves.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(entry) => {
                let told = self.datapath.steer_counts(id)?.moved;
                entry.insert(Moves::told_until(told))
            }
        })
    }

    /// Takes the program away again, while steering still keeps new connections from the socket that does it. Where there is none,
    /// since an attach did not come so far, nothing may keep them from it.
    pub(in crate::daemon) fn leave_queues(&mut self, id: ServiceId) -> Result<(), WorldError> {
        for group in self.guarded_groups(id)? {
            take(Step::LeaveQueue, || Ok(group.detach_migrate()?))?;
        }
        Ok(())
    }

    /// A listener that is alone on its port, or cannot share it, has nobody to move a connection to. One without a tag is not
    /// taken over yet, or was released already, and does not share its port.
    pub(in crate::daemon) fn groups_of(
        &self,
        id: ServiceId,
    ) -> Result<BTreeSet<Group>, WorldError> {
        let shares = |it: &&Generation| it.hold() == PortHold::Shared;
        let service = &self.record(id).service;
        let cookies: HashSet<_> = service
            .generations()
            .iter()
            .filter(shares)
            .flat_map(|it| it.listeners())
            .map(|it| it.cookie)
            .collect();
        let listeners = sock_diag::tagged_listeners(self.datapath.tags())?;
        let is_ours = |it: &&Listener| it.tag.is_some() && cookies.contains(&it.cookie.0);
        Ok(listeners.iter().filter(is_ours).map(group_of).collect())
    }

    /// The kernel has moved connections to this generation.
    pub(in crate::daemon) fn note_moved(&mut self, taker: GenerationId) {
        self.moves.entry(taker.service).or_default().note(taker.number);
    }

    /// When the next listener is to be woken.
    pub(in crate::daemon) fn next_nudge(&self) -> Option<Instant> {
        self.moves.values().filter_map(Moves::untold).map(|(_, due)| due).min()
    }

    /// Wakes listeners that were given connections.
    pub(in crate::daemon) fn nudge_where_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .moves
            .iter()
            .filter_map(|(id, moves)| moves.untold().map(|(taker, due)| (*id, taker, due)))
            .filter(|(id, _, due)| *due <= now && self.records.contains_key(id))
            .collect();
        for (id, taker, _) in due {
            if let Err(problem) = self.nudge(id, taker) {
                tracing::warn!(
                    problem = problem.in_full(),
                    "cannot hand on connections that were moved"
                );
            }
        }
    }

    fn nudge(&mut self, id: ServiceId, taker: GenerationNumber) -> Result<(), WorldError> {
        let moved = self.datapath.steer_counts(id)?.moved;
        let moves = self.moves.entry(id).or_default();
        let before = *moves;
        let new = moves.tell(moved, taker);
        if new == 0 {
            return Ok(());
        }
        if let Err(problem) = self.hand_on(GenerationId { service: id, number: taker }) {
            // Nobody reports these moves a second time.
            self.moves.insert(id, before.tried_again(taker, RETRY));
            return Err(problem);
        }
        let connections = if new == 1 { "connection" } else { "connections" };
        let message = format!(
            "{new} {connections} whose listener closed before accepting them moved to generation {taker}"
        );
        let name = self.record(id).service.name().clone();
        self.journal.note(&name, Some(taker), EventKind::Moved, message);
        Ok(())
    }

    /// An agent that was killed may have left moved connections to a listener that nobody has woken.
    pub(in crate::daemon) fn hand_on_after_restart(&mut self, id: ServiceId) {
        let Some(primary) = self.record(id).service.primary() else { return };
        let taker = GenerationId { service: id, number: primary.number() };
        let moved = self.datapath.steer_counts(id).map(|counts| counts.moved > 0);
        let handed_on = moved.map_err(WorldError::from).and_then(|any_moved| match any_moved {
            true => self.hand_on(taker),
            false => Ok(()),
        });
        if let Err(problem) = handed_on {
            tracing::warn!(
                problem = problem.in_full(),
                "cannot tell whether moved connections wait to be accepted"
            );
        }
    }

    /// Has a generation accept the connections that were moved to it, and counts them as its own.
    fn hand_on(&mut self, taker: GenerationId) -> Result<(), WorldError> {
        let service = &self.record(taker.service).service;
        // Steering leads these to the generation that the moved connections went to.
        let bound: HashSet<_> = service
            .generation(taker.number)
            .map(|it| it.listeners().iter().map(|listener| listener.bound).collect())
            .unwrap_or_default();
        let woken = bound.into_iter().try_for_each(|address| {
            take(Step::WakeListener, || {
                wake(address).map_err(|source| WorldError::Wake { address, source })
            })
        });
        self.count_moved(taker)?;
        woken
    }

    /// A cookie is taken for valid by a listener that has sent some within two minutes, or whose reuseport group has
    /// (`tcp_synq_no_recent_overflow`). A listener on a port of its own has not. Nobody can send the acknowledgement to the
    /// listener that would take it: `sk_lookup` programs see addresses and ports, and no flags that tell it from a SYN.
    pub(in crate::daemon) fn warn_of_cookies(&mut self, moved: GenerationId) {
        let now = match syn_cookies::sent() {
            Ok(sent) => sent,
            Err(error) => {
                return tracing::warn!(%error, "cannot tell whether SYN cookies are in use");
            }
        };
        if now > std::mem::replace(&mut self.cookies_sent, now) {
            let name = self.record(moved.service).service.name().clone();
            let message = format!(
                "SYN cookies are in use, and generation {} is bound to a port of its own: clients that were just answering a \
                 cookie are reset, until its own queue overflows; share the port (same user) to spare them that",
                moved.number
            );
            self.journal.note(&name, Some(moved.number), EventKind::Warning, message);
        }
    }

    /// All connections to a service's ports, of which none was moved without its tag saying so.
    ///
    /// # Errors
    ///
    /// When they cannot be listed or tagged, or the server has more of them moved as fast as they are listed.
    pub(in crate::daemon) fn flows_where_they_are(
        &mut self,
        id: ServiceId,
    ) -> Result<Vec<Connection>, WorldError> {
        const TRIES: usize = 64;
        for _try in 0..TRIES {
            let moved = self.datapath.steer_counts(id)?.moved;
            let primary = self.record(id).service.primary().map(|it| it.number());
            if let Some(number) = primary
                && !self.moves.entry(id).or_default().are_tagged(moved)
            {
                self.count_moved(GenerationId { service: id, number })?;
                self.moves.entry(id).or_default().note_tagged(moved);
            }
            let flows = self.flows_of(id)?;
            if self.datapath.steer_counts(id)?.moved == moved {
                return Ok(flows);
            }
        }
        Err(WorldError::MovedTooFast)
    }

    /// A moved connection carries the tag of the listener that did not accept it: the drain of that one would wait for it,
    /// and its end would count it as lost.
    fn count_moved(&mut self, taker: GenerationId) -> Result<(), WorldError> {
        let live = self.listeners_of(taker.service)?;
        let live: HashSet<_> = live.iter().map(|it| it.cookie.0).collect();
        let service = &self.record(taker.service).service;
        let listens = |key: GenerationKey| {
            let known = service.generation(GenerationNumber(key.generation));
            known.is_some_and(|it| it.listeners().iter().any(|it| live.contains(&it.cookie)))
        };
        let mut left = self.flows_of(taker.service)?;
        left.retain(|flow| {
            flow.stage() != Stage::Orphaned
                && owner(flow).is_some_and(|key| {
                    key.service == taker.service.0 && key != taker.key() && !listens(key)
                })
        });
        let kept = self.held_by_owners(&left)?;
        left.retain(|flow| flow.inode.is_none_or(|inode| !kept.contains(&inode)));
        if left.is_empty() {
            return Ok(());
        }
        take(Step::MoveFlows, || {
            Ok(self.datapath.move_flows(taker, left.iter().map(address_of))?)
        })
    }

    /// Which of these flows a process of the generation that they are tagged with has accepted.
    fn held_by_owners(&self, flows: &[Connection]) -> Result<HashSet<SocketInode>, WorldError> {
        let accepted: HashSet<_> = flows.iter().filter_map(|flow| flow.inode).collect();
        let owners: HashSet<_> = flows
            .iter()
            .filter_map(owner)
            .map(|key| (ServiceId(key.service), GenerationNumber(key.generation)))
            .collect();
        let mut pids = HashSet::new();
        for (service, number) in owners {
            pids.extend(self.pids_of(GenerationId { service, number })?);
        }
        if accepted.is_empty() || pids.is_empty() {
            return Ok(HashSet::new());
        }
        let holders = holders::holders_among(pids, &accepted)?.found;
        Ok(holders.into_iter().flat_map(|it| it.inodes).collect())
    }
}

/// The group that a listener is in.
pub(in crate::daemon) fn group_of(listener: &Listener) -> Group {
    Group {
        address: (listener.address, listener.port).into(),
        v6only: listener.v6only,
        uid: listener.uid,
    }
}

/// Connects once, and for no longer: a kernel that does not wake a listener for moved connections wakes it for this one.
fn wake(bound: SocketAddr) -> io::Result<()> {
    let ip = match bound.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        exact => exact,
    };
    let socket = Socket::new(Domain::for_address(bound), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SocketAddr::new(ip, bound.port()).into()) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        // `EINPROGRESS` has no kind of its own in every version of the library.
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            Ok(())
        }
        other => other,
    }
}
