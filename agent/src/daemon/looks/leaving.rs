//! Looks at generations that leave: what is in their queues, and how many flows they have.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use agent_rollout::{Event, Flows, Phase, Queues};
use agent_terms::{GenerationId, ServiceId};

use crate::daemon::looks::observe::{flow_look, owner, until_drained};
use crate::{
    daemon::{
        agent::Agent,
        state::{clock, troubles::Trouble},
        world_error::WorldError,
    },
    host::sock_diag::{self, Connection, SocketCookie, Stage},
};

/// Flows of a service that are listed at any time: they take 3 ms, which is what a command may have to wait.
const LISTED_AT_ONCE: u64 = 1_000;

impl Agent {
    /// Requests that are half-open at the switch belong to the generation that got the SYN. Those that come later have other
    /// cookies, so that nothing else has to tell them apart.
    pub(in crate::daemon) fn remember_half_open(
        &mut self,
        id: ServiceId,
    ) -> Result<(), WorldError> {
        let service = &self.record(id).service;
        let Some(replaced) =
            service.primary().map(|it| GenerationId { service: id, number: it.number() })
        else {
            return Ok(());
        };
        let requests = self.half_open_requests(id)?;
        self.memories.of_mut(replaced).half_open = Some(requests);
        Ok(())
    }

    pub(in crate::daemon) fn look_at_queues(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        // Should it die before it drains, this is how many flows died with it.
        if self.seen_flows(generation).is_none() {
            match self.drains_for_long(generation)? {
                true => self.take_kernel_count(generation)?,
                false => self.look_at_flows(generation)?,
            }
        }
        let queues = self.queues(generation)?;
        self.feed(generation.service, Event::Queues(generation.number, queues))
    }

    /// Half-open requests first: one that becomes a connection meanwhile is seen in the accept queue.
    fn queues(&mut self, generation: GenerationId) -> Result<Queues, WorldError> {
        let Some(known) = self.generation(generation) else { return Ok(Queues::Empty) };
        let cookies: HashSet<_> =
            known.listeners().iter().map(|listener| listener.cookie).collect();
        let half_open = self.still_half_open(generation)?;
        let all = self.listeners_of(generation.service)?;
        let listeners = all.iter().filter(|listener| cookies.contains(&listener.cookie.0));
        let queued = listeners.map(|listener| u64::from(listener.accept_queue)).sum::<u64>();
        let waiting = half_open + self.of_clients(generation, queued)?;
        Ok(if waiting == 0 { Queues::Empty } else { Queues::Waiting(waiting) })
    }

    /// How many of these connections in accept queues have a client that waits. A queue also holds those that were reset, which
    /// no list shows, and those that the client has closed: none of them leaves it if nobody accepts. A server that works has
    /// emptied its queue long before anybody has to list what is in it.
    fn of_clients(&self, generation: GenerationId, queued: u64) -> Result<u64, WorldError> {
        let since = self.generation(generation).and_then(|known| known.phase().queues_since());
        let lasts = since.is_some_and(|since| clock::now().since(since) >= sock_diag::PATIENCE);
        if queued == 0 || !lasts {
            return Ok(queued);
        }
        let waits = |flow: &&Connection| {
            flow.stage() == Stage::Queued
                && !flow.is_abandoned()
                // Before its listener was taken over it got no tag.
                && owner(flow).is_none_or(|key| key == generation.key())
        };
        let waiting = self.flows_of(generation.service)?.iter().filter(waits).count();
        Ok(queued.min(waiting as u64))
    }

    /// How many of the generation's half-open requests are left. Those that are gone never come back, and once all are,
    /// nobody has to walk the kernel's table for them again.
    fn still_half_open(&mut self, generation: GenerationId) -> Result<u64, WorldError> {
        let remembered = self.memories.of(generation).and_then(|it| it.half_open.as_ref());
        if remembered.is_some_and(HashSet::is_empty) {
            return Ok(0);
        }
        let mut requests = self.half_open_requests(generation.service)?;
        // After a restart nobody remembers which were there at the switch: then all that are there now are waited for.
        if let Some(remembered) = remembered {
            requests.retain(|request| remembered.contains(request));
        }
        let left = requests.len() as u64;
        self.memories.of_mut(generation).half_open = Some(requests);
        Ok(left)
    }

    /// The look that decides whether a generation is told to end. Steering must have forgotten it, and whoever takes its
    /// place must be there.
    pub(in crate::daemon) fn look_last(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let id = generation.service;
        // While the state cannot be saved, nobody could be told to end: until then it can still become the primary again.
        if self.troubles.lasts(Trouble::Unsaved)
            || self.outstanding.has_any(id)
            || !self.primary_is_certain(id)?
            || self.waits_for_owners(generation)?
        {
            return Ok(());
        }
        if self.memories.of(generation).is_none_or(|it| it.half_open.is_none()) {
            let requests = self.requests_of_standby(id)?;
            self.memories.of_mut(generation).half_open = Some(requests);
        }
        let queues = self.queues(generation)?;
        let Some(flows) = self.count_flows(generation)? else { return Ok(()) };
        self.feed(id, Event::LastLook(generation.number, queues, flows))
    }

    /// Half-open requests that a standby may have got: none, if the kernel never fell back to
    /// one and never moved any.
    fn requests_of_standby(&self, id: ServiceId) -> Result<HashSet<SocketCookie>, WorldError> {
        let counts = self.datapath.steer_counts(id)?;
        if counts.fallback == 0 && counts.moved == 0 {
            return Ok(HashSet::new());
        }
        self.half_open_requests(id)
    }

    fn half_open_requests(&self, id: ServiceId) -> Result<HashSet<SocketCookie>, WorldError> {
        let requests = sock_diag::half_open(&self.ports_of(id))?;
        Ok(requests.into_iter().map(|request| request.cookie).collect())
    }

    pub(in crate::daemon) fn look_at_flows(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        if self.waits_for_owners(generation)? {
            return Ok(());
        }
        let Some(flows) = self.count_flows(generation)? else { return Ok(()) };
        self.feed(generation.service, Event::Flows(generation.number, flows))
    }

    /// Whether connections may be its that nobody has yet. Whoever holds them where nobody sees that, in messages that nobody reads,
    /// keeps no generation longer than its flows do.
    fn waits_for_owners(&mut self, generation: GenerationId) -> Result<bool, WorldError> {
        let deadline = self.generation(generation).and_then(|known| known.phase().drain_deadline());
        let is_over = deadline.is_some_and(|deadline| deadline <= clock::now());
        Ok(self.still_unattributed(generation.service)? && !is_over)
    }

    /// Whether a list of all flows would only show that some of the generation are left, while whoever asks for something has
    /// to wait for it.
    fn drains_for_long(&self, generation: GenerationId) -> Result<bool, WorldError> {
        let mut open = 0;
        for other in self.record(generation.service).service.generations() {
            let key = GenerationId { service: generation.service, number: other.number() };
            open += self.datapath.flow_counts(key)?.open();
        }
        Ok(open > LISTED_AT_ONCE && self.datapath.flow_counts(generation)?.open() > 0)
    }

    /// What the kernel has counted, until the flows are listed. It takes those along that the server has closed and the kernel
    /// still sends the rest of.
    fn take_kernel_count(&mut self, generation: GenerationId) -> Result<(), WorldError> {
        let open = self.datapath.flow_counts(generation)?.open();
        let flows = Flows { open, queued: 0, idle: Duration::ZERO };
        self.memories.of_mut(generation).flows = Some(flows);
        self.feed(generation.service, Event::Flows(generation.number, flows))
    }

    /// When a generation is looked at that has come into another phase: at once, but for a drain that takes its time anyway.
    /// Should it be over sooner, the kernel reports that.
    pub(in crate::daemon) fn first_look(&self, generation: GenerationId, phase: &Phase) -> Instant {
        let now = Instant::now();
        match until_drained(phase) {
            // What cannot be read is looked at now: that says what is wrong.
            Some(left) if self.drains_for_long(generation).unwrap_or(false) => {
                now + flow_look(self.count_cost, left).min(left)
            }
            Some(_) | None => now,
        }
    }
}
