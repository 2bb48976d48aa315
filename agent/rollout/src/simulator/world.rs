//! What is not ours: servers, their connections, and what the kernel was told. Short, and of its own opinion.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use agent_terms::GenerationNumber;

use super::{Halt, broken};
use crate::{ListenerRecord, Listening, PortHold, Targets, Timestamp};

/// One server, and the connections that the kernel gave it.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) alive: bool,
    pub(super) listens: bool,
    /// Whether it takes what waits for it.
    pub(super) accepts: bool,
    /// Whether it has accepted a probe.
    pub(super) proved: bool,
    /// Whether it goes on listening when it is told to end.
    pub(super) slow: bool,
    pub(super) started_by_others: bool,
    /// Whether it was to take the place of one that serves no more, and nobody asked the agent.
    pub(super) started_anew: bool,
    /// Whether who had started a generation that has ended did it.
    pub(super) came_back: bool,
    /// Whether it is enough that it listens.
    pub(super) need_not_prove: bool,
    /// The number of its listener, another one each time that it opens one.
    pub(super) listener: u64,
    /// How often it was told.
    pub(super) signals: u32,
    pub(super) half_open: u64,
    /// On its way from half-open to queued, where no look finds it.
    pub(super) between: u64,
    pub(super) queued: u64,
    pub(super) accepted: u64,
}

impl Server {
    pub(super) fn hears(&self) -> bool {
        self.alive && self.listens
    }

    pub(super) fn flows(&self) -> u64 {
        self.queued + self.accepted
    }

    fn waiting(&self) -> u64 {
        self.half_open + self.between + self.queued
    }

    fn close(&mut self) {
        (self.listens, self.half_open, self.between, self.queued) = (false, 0, 0, 0);
    }
}

/// What may still end with a generation when it is told to end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed {
    /// Connections that it has not accepted: the time for them was up.
    pub(super) waiting: bool,
    /// Its flows: it finishes them by itself, or they were idle, or the time for them was up.
    pub(super) flows: bool,
}

/// Servers and kernel.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) servers: BTreeMap<GenerationNumber, Server>,
    /// One that somebody has started anew, and that is nobody's.
    pub(super) stranger: Option<Server>,
    pub(super) steering: Option<Targets>,
    /// Whether the agent that steered so crashed before it had written that down, on a full disk: the next one decides anew.
    pub(super) steered_unwritten: bool,
    /// Whether the maps are gone: the kernel's own lookup leads to any server that listens.
    pub(super) maps_lost: bool,
    /// Of which generations the maps know.
    pub(super) mapped: BTreeSet<GenerationNumber>,
    /// Whose listeners are in the socket map.
    pub(super) adopted: BTreeSet<GenerationNumber>,
    pub(super) forgotten: BTreeSet<GenerationNumber>,
    /// Those that steering led to at some time, until it was told to forget one that is to end.
    pub(super) promised: BTreeSet<GenerationNumber>,
    /// Those that were the primary at some time.
    pub(super) served: BTreeSet<GenerationNumber>,
    /// Until when a replaced generation is to be there to go back to, and for whom.
    pub(super) kept: BTreeMap<GenerationNumber, (GenerationNumber, Timestamp)>,
    /// What was seen by the last look at a generation.
    pub(super) allowed: BTreeMap<GenerationNumber, Allowed>,
}

impl World {
    /// Its listener, as it would be written down.
    pub(super) fn listening(&self, number: GenerationNumber) -> Listening {
        let cookie = self.servers.get(&number).map_or(0, |it| it.listener);
        let bound = SocketAddr::from(([127, 0, 0, 1], 80));
        let listener = ListenerRecord { cookie, bound, public: None };
        Listening { hold: PortHold::Shared, listeners: vec![listener] }
    }

    /// Whether it takes connections that are steered to it.
    pub(super) fn reachable(&self, number: GenerationNumber) -> bool {
        self.adopted.contains(&number) && self.servers.get(&number).is_some_and(Server::hears)
    }

    pub(super) fn steers_to(&self, number: GenerationNumber) -> bool {
        self.order().any(|target| target == number)
    }

    fn order(&self) -> impl Iterator<Item = GenerationNumber> {
        let targets = self.steering.iter();
        targets.flat_map(|it| std::iter::once(it.primary).chain(it.standbys.iter().copied()))
    }

    /// Lets connections go on: none is between two queues for as long as this takes.
    pub(super) fn advance(&mut self, number: GenerationNumber, moved: [u64; 3]) {
        let Some(server) = self.servers.get_mut(&number) else { return };
        server.queued += std::mem::take(&mut server.between);
        let [between, queued, accepted] = moved;
        let accepted = if server.accepts { accepted.min(server.queued) } else { 0 };
        (server.queued, server.accepted) = (server.queued - accepted, server.accepted + accepted);
        let queued = queued.min(server.half_open);
        (server.half_open, server.queued) = (server.half_open - queued, server.queued + queued);
        let between = between.min(server.half_open);
        (server.half_open, server.between) = (server.half_open - between, between);
    }

    /// Somebody has removed what is pinned while no agent ran.
    pub(super) fn lose_maps(&mut self) {
        (self.steering, self.maps_lost) = (None, true);
        self.mapped.clear();
        self.adopted.clear();
        self.promised.clear();
    }

    /// A client connects: no connection is refused while a generation lives that can serve. `any` says to whom the kernel's own lookup
    /// leads.
    pub(super) fn connect(&mut self, any: usize) -> Result<(), Halt> {
        if self.maps_lost {
            let listening = self.servers.values_mut().filter(|it| it.hears());
            let mut all: Vec<_> = listening.chain(self.stranger.as_mut()).collect();
            if !all.is_empty() {
                let index = any % all.len();
                all[index].half_open += 1;
            }
            return Ok(());
        }
        let steered = self.order().find(|number| self.reachable(*number));
        let Some(number) = steered else {
            if let Some(number) = self.promised.iter().find(|number| self.reachable(**number)) {
                return broken(format!("a client is refused, and {number} could serve"));
            }
            // By the kernel's own lookup.
            if let Some(stranger) = self.stranger.as_mut().filter(|it| it.hears()) {
                stranger.half_open += 1;
            }
            return Ok(());
        };
        self.server(number)?.half_open += 1;
        Ok(())
    }

    pub(super) fn server(&mut self, number: GenerationNumber) -> Result<&mut Server, Halt> {
        let server = self.servers.get_mut(&number);
        server.ok_or_else(|| Halt::Broken(format!("there is no server {number}")))
    }

    pub(super) fn die(&mut self, number: GenerationNumber) {
        if let Some(server) = self.servers.get_mut(&number) {
            server.close();
            (server.alive, server.accepted) = (false, 0);
        }
    }

    /// Its listener leaves the socket map by itself.
    pub(super) fn deafen(&mut self, number: GenerationNumber) {
        self.adopted.remove(&number);
        if let Some(server) = self.servers.get_mut(&number) {
            server.close();
        }
    }

    pub(super) fn launch(
        &mut self,
        number: GenerationNumber,
        slow: bool,
        need_not_prove: bool,
    ) -> Result<(), Halt> {
        if self.servers.contains_key(&number) {
            return broken(format!("{number} is launched twice"));
        }
        let server = Server { alive: true, slow, need_not_prove, ..Server::default() };
        self.servers.insert(number, server);
        self.mapped.insert(number);
        Ok(())
    }

    pub(super) fn has_stranger(&self) -> bool {
        self.stranger.as_ref().is_some_and(Server::hears)
    }

    /// Whether the stranger was started again by who had started a generation that has ended.
    pub(super) fn has_come_back(&self) -> bool {
        self.stranger.as_ref().is_some_and(|server| server.came_back)
    }

    /// The stranger becomes a generation.
    pub(super) fn take_in(&mut self, number: GenerationNumber) {
        self.servers.extend(self.stranger.take().map(|server| (number, server)));
        self.adopt(number);
    }

    /// One that was taken in becomes a stranger again, unless that was written down.
    pub(super) fn disown(&mut self, is_known: impl Fn(GenerationNumber) -> bool) {
        let taken_in = |number: &GenerationNumber, server: &Server| {
            server.started_anew && server.signals == 0 && !is_known(*number)
        };
        let disowned: Vec<_> =
            self.servers.extract_if(.., |it, server| taken_in(it, server)).collect();
        for (number, server) in disowned {
            self.promised.remove(&number);
            self.served.remove(&number);
            if self.stranger.is_none() && server.hears() {
                self.stranger = Some(server);
            }
        }
    }

    pub(super) fn adopt(&mut self, number: GenerationNumber) {
        self.mapped.insert(number);
        self.adopted.insert(number);
    }

    /// `leaves` says for whom it was decided that steering forgets it.
    pub(super) fn steer(
        &mut self,
        targets: Targets,
        leaves: impl Fn(GenerationNumber) -> bool,
    ) -> Result<(), Halt> {
        if self.servers.get(&targets.primary).is_some_and(|it| it.signals > 0) {
            return broken(format!("{} is steered to, though it was told to end", targets.primary));
        }
        self.judge_candidate(targets.primary)?;
        self.served.insert(targets.primary);
        (self.steering, self.steered_unwritten) = (Some(targets), false);
        let order: Vec<_> = self.order().collect();
        self.promised.retain(|number| order.contains(number) || !leaves(*number));
        self.promised.extend(order);
        Ok(())
    }

    /// A connection that nobody but the candidate can get.
    pub(super) fn probe(&mut self, number: GenerationNumber) -> bool {
        let reachable = self.reachable(number);
        let Some(server) = self.servers.get_mut(&number) else { return false };
        server.proved |= reachable && server.accepts;
        server.proved
    }

    /// A generation that has shown nothing gets no new connection that another one could take.
    fn judge_candidate(&self, number: GenerationNumber) -> Result<(), Halt> {
        let new = !self.served.contains(&number);
        let proved = self.servers.get(&number).is_none_or(|it| it.proved || it.need_not_prove);
        let written = self.steering.as_ref().filter(|_| !self.steered_unwritten);
        let serving = written.filter(|it| self.reachable(it.primary));
        // Who was started anew is as good as one that accepts nothing.
        let anew = self.servers.get(&number).is_some_and(|it| it.started_anew);
        let accepts =
            |it: &&Targets| self.servers.get(&it.primary).is_some_and(|server| server.accepts);
        match serving.filter(|it| !anew || accepts(it)) {
            Some(serving) if new && !proved => broken(format!(
                "{number} has accepted nothing, and takes the place of {}",
                serving.primary
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// A generation is told to end only once, when steering leads to it no more, and with nothing left that is waited for.
    pub(super) fn signal(&mut self, number: GenerationNumber, now: Timestamp) -> Result<(), Halt> {
        if self.steers_to(number) {
            return broken(format!("{number} is told to end while it is steered to"));
        }
        let primary = self.steering.as_ref().map(|it| it.primary);
        if let Some((by, until)) = self.kept.get(&number)
            && primary == Some(*by)
            && self.servers.get(by).is_some_and(|it| it.alive)
            && now < *until
        {
            return broken(format!("{number} is told to end before {by} has proved itself"));
        }
        let allowed = self.allowed.get(&number).copied();
        let Some(server) = self.servers.get_mut(&number) else { return Ok(()) };
        server.signals += 1;
        let told = || broken(format!("{number} is told to end: {server:?}, {allowed:?}"));
        match allowed {
            _ if server.signals > 1 => return told(),
            Some(allowed) if server.waiting() > 0 && !allowed.waiting => return told(),
            Some(allowed) if server.accepted > 0 && !allowed.flows => return told(),
            // A candidate that is given up: nobody was ever steered to it.
            Some(_) | None => {}
        }
        if !server.slow {
            server.close();
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        if self.steering.as_ref().is_some_and(|targets| targets.primary == number) {
            return broken(format!("{number} is forgotten while it is steered to"));
        }
        self.adopted.remove(&number);
        self.mapped.remove(&number);
        match self.forgotten.insert(number) {
            true => Ok(()),
            false => broken(format!("{number} is forgotten twice")),
        }
    }
}
