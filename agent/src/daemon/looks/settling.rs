//! Watches what waits for a primary that has to prove itself.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Instant,
};

use agent_rollout::Event;
use agent_terms::{GenerationId, GenerationNumber};

use super::{backlog::Backlog, observe::owner};
use crate::{
    daemon::{agent::Agent, memory::Memory, world_error::WorldError},
    host::sock_diag::{Connection, Stage},
};

impl Agent {
    /// When queues are looked at next.
    pub(in crate::daemon) fn next_backlog_look(&self) -> Option<Instant> {
        self.memories.times(next_look).map(|(_, at)| at).min()
    }

    /// Looks at the queues of every primary that has to prove itself.
    pub(in crate::daemon) fn look_at_backlogs_where_due(&mut self) {
        let now = Instant::now();
        let settling: Vec<_> = self
            .records
            .iter()
            .filter_map(|(id, record)| {
                record.service.settling().map(|number| GenerationId { service: *id, number })
            })
            .collect();
        let others = self.memories.iter_mut().filter(|(it, _)| !settling.contains(it));
        others.for_each(|(_, memory)| memory.backlog = None);
        for generation in settling {
            let backlog = &mut self.memories.of_mut(generation).backlog;
            if backlog.get_or_insert_with(|| Backlog::new(now)).next_look() <= now {
                let looked = self.look_at_backlog(generation);
                self.note_look(generation, looked);
            }
        }
    }

    fn look_at_backlog(&mut self, generation: GenerationId) -> Result<(), WorldError> {
        let begun = Instant::now();
        let Some(known) = self.generation(generation) else { return Ok(()) };
        let known: Vec<_> = known.listeners().iter().map(|it| it.cookie).collect();
        let mut listeners = self.listeners_of(generation.service)?;
        listeners.retain(|it| known.contains(&it.cookie.0));
        let waiting = match listeners.iter().any(|it| it.accept_queue > 0) {
            true => self.clients_waiting_for(generation)?,
            false => HashMap::new(),
        };
        let now = Instant::now();
        let known = self.memories.known_mut(generation);
        let Some(backlog) = known.and_then(|it| it.backlog.as_mut()) else { return Ok(()) };
        backlog.note_look(begun, now);
        let mut stuck = backlog.stands_still(waiting, now);
        for listener in &listeners {
            let full = listener.accept_queue > listener.backlog;
            stuck |= backlog.is_stuck(listener.cookie.0, listener.accept_queue, full, now);
        }
        let number: GenerationNumber = generation.number;
        if stuck { self.feed(generation.service, Event::Stuck(number)) } else { Ok(()) }
    }

    /// Those whose connections nobody has accepted, by the port that they connected to.
    fn clients_waiting_for(
        &self,
        generation: GenerationId,
    ) -> Result<HashMap<u16, HashSet<SocketAddr>>, WorldError> {
        let mut waiting: HashMap<u16, HashSet<SocketAddr>> = HashMap::new();
        for flow in self.not_accepted(generation)? {
            waiting.entry(flow.local.port()).or_default().insert(flow.remote);
        }
        Ok(waiting)
    }

    /// The connections of a generation that nobody has accepted.
    pub(in crate::daemon) fn not_accepted(
        &self,
        generation: GenerationId,
    ) -> Result<Vec<Connection>, WorldError> {
        let mut flows = self.flows_of(generation.service)?;
        flows.retain(|it| it.stage() == Stage::Queued && owner(it) == Some(generation.key()));
        Ok(flows)
    }
}

fn next_look(memory: &Memory) -> Option<Instant> {
    memory.backlog.as_ref().map(Backlog::next_look)
}
