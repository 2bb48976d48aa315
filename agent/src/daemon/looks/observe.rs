//! Looks at generations: is the candidate ready, are the queues empty, are the flows gone?
//!
//! The kernel's reports say when to look; what counts is what the sockets themselves say (`sock_diag`).

use std::time::{Duration, Instant};

use agent_api::EventKind;
use agent_rollout::{Event, Flows, Origin, Phase};
use agent_terms::{Endpoint, GenerationId, ServiceId};

use crate::{
    daemon::{
        agent::{Agent, RETRY},
        state::{clock, troubles::Trouble},
        world_error::WorldError,
    },
    datapath::{self, Datapath},
    host::{process::Ending, sock_diag::Connection},
};

/// Time between two looks at the queues of a replaced generation.
const QUEUE_LOOK: Duration = Duration::from_millis(10);
/// Time between two looks at the flows of a draining generation that nobody reports as empty, at least.
const FLOW_LOOK: Duration = Duration::from_secs(1);
/// What such looks may take of the time, all together: one part in so many. Who asks meanwhile has to wait for one.
const FLOW_SHARE: u32 = 20;
/// The same for looks at queues, which walk the kernel's table of all connections while requests are half-open: 0.3 ms for
/// the 262,144 buckets of a machine with 24 GiB, and 25 ms beside 100,000 connections. A queue is long just where the server
/// needs the core.
const QUEUE_SHARE: u32 = 10;
/// The same for looks at the listeners of a server that opens one after the other.
const LISTENER_SHARE: u32 = 4;
/// A listener is reported just before a dump can find it (see `LISTENER_APPEARED`): how much later to look again.
pub(in crate::daemon) const LISTENER_LOOK: Duration = Duration::from_millis(2);

impl Agent {
    /// What a kernel program reports.
    pub(in crate::daemon) fn note_kernel(&mut self, event: datapath::Event) {
        match event {
            datapath::Event::ListenerAppeared(generation) => self.note_listener(generation),
            datapath::Event::GenerationEmpty(generation) => self.look_at(generation),
            datapath::Event::ListenerGone(generation) => self.note_listener_gone(generation),
            datapath::Event::ConnectionsMoved(generation) => self.note_moved(generation),
            datapath::Event::StrangerListens(service) => self.note_stranger(service),
            datapath::Event::FallbackUsed(generation) => {
                self.warn_of(
                    generation,
                    format!(
                        "generation {} has no listener left for some new connections; another one took them",
                        generation.number
                    ),
                );
                self.note_listener_gone(generation);
            }
            datapath::Event::BindMoved(generation) => self.warn_of(
                generation,
                format!(
                    "generation {} could not share the port: its bind was moved to a free one",
                    generation.number
                ),
            ),
        }
    }

    /// Looks at once, and then rests for a while. A report wakes us, and whoever wakes up goes first: a server that opens a
    /// thousand listeners on the same core would come to open one of them between two looks.
    fn note_listener(&mut self, generation: GenerationId) {
        let begun = Instant::now();
        if begun < self.listeners_rest {
            self.look_at_time(generation, self.listeners_rest.max(begun + LISTENER_LOOK));
            return;
        }
        self.look_at(generation);
        let ended = Instant::now();
        self.listeners_rest = ended + (ended - begun).saturating_mul(LISTENER_SHARE);
        self.look_at_time(generation, self.listeners_rest.max(ended + LISTENER_LOOK));
    }

    /// Others of the generation may live, and new ones may have come. The first process of a launched one may have put its
    /// server into the background: its cgroup tells when the last one has ended.
    pub(in crate::daemon) fn note_process_ended(
        &mut self,
        generation: GenerationId,
        ending: Option<Ending>,
    ) {
        // What it said of its launch says more than how it ended.
        self.look_at_launch(generation);
        let Some(known) = self.generation(generation) else { return };
        let launched = *known.origin() != Origin::Found;
        let listens = matches!(known.phase(), Phase::Starting { listens: true, .. });
        if launched && let Some(ending) = ending {
            self.warn_of_orphans(generation, ending);
            // One that listens has put itself into the background.
            if !listens || ending != Ending::Exited(0) {
                let how = format!("its first process {ending}");
                self.feed_quietly(generation.service, Event::NotYet(generation.number, how));
            }
        }
        let told = self.tell_next_roots(generation);
        let counted = told.and_then(|()| self.count_processes(generation));
        self.note_look(generation, counted);
    }

    /// Of a launched one the cgroup tells the end, unless its last processes have left it, and it has been empty before.
    pub(in crate::daemon) fn count_processes(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        if self.generation(generation).is_none() || self.watch_roots(generation)? > 0 {
            return Ok(());
        }
        let populated = self.cgroup_of(generation)?.map(|it| it.is_populated()).transpose();
        match populated {
            Ok(Some(true)) => {}
            Ok(Some(false) | None) => self.note_exit(generation),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The cgroup of a launched generation is empty. Some of its processes may have moved out of it.
    pub(in crate::daemon) fn note_cgroup_emptied(&mut self, generation: GenerationId) {
        match self.watch_roots(generation) {
            Ok(0) => self.note_exit(generation),
            Ok(_) => {}
            looked => self.note_look(generation, looked.map(drop)),
        }
    }

    /// No process of the generation is left.
    pub(in crate::daemon) fn note_exit(&mut self, generation: GenerationId) {
        if let Err(problem) = self.warn_of_strays(generation) {
            tracing::warn!(
                problem = problem.in_full(),
                "cannot tell who holds the listeners of a generation that ended"
            );
        }
        if self.records.contains_key(&generation.service) {
            self.feed_quietly(generation.service, Event::Exited(generation.number));
        }
    }

    /// Has a generation looked at then, and not before.
    pub(in crate::daemon) fn look_at_time(&mut self, generation: GenerationId, when: Instant) {
        self.memories.of_mut(generation).next_look = Some(when);
    }

    pub(in crate::daemon) fn look_later(&mut self, generation: GenerationId, after: Duration) {
        self.look_at_time(generation, Instant::now() + after);
    }

    /// What was last seen of a generation's flows.
    pub(in crate::daemon) fn seen_flows(&self, generation: GenerationId) -> Option<Flows> {
        self.memories.of(generation)?.flows
    }

    /// Looks at every generation whose time has come, and decides when to look next.
    pub(in crate::daemon) fn look_where_due(&mut self) {
        let now = Instant::now();
        for generation in self.memories.due(now, |it| it.next_look) {
            self.memories.of_mut(generation).next_look = None;
            self.look_at(generation);
        }
        let looked = now.elapsed();
        let generations = self.records.values().flat_map(|it| it.service.generations());
        let draining = generations.filter(|it| until_drained(it.phase()).is_some()).count();
        let cost = self.count_cost.saturating_mul(u32::try_from(draining).unwrap_or(u32::MAX));
        for (id, record) in &self.records {
            for generation in record.service.generations() {
                let key = GenerationId { service: *id, number: generation.number() };
                let waits = *generation.phase() == Phase::Primary && self.unattributed.contains(id);
                if let Some(interval) =
                    interval(generation.phase(), looked, cost).or(waits.then_some(FLOW_LOOK))
                {
                    let next = &mut self.memories.of_mut(key).next_look;
                    next.get_or_insert_with(|| Instant::now() + interval);
                }
            }
        }
    }

    fn look_at(&mut self, generation: GenerationId) {
        if self.troubles.lasts(Trouble::Look(generation)) {
            // What failed may have been the look after the end of a process, or at the close of a listener.
            let counted = self.count_processes(generation);
            let looked = counted.and_then(|()| self.look_again_for_deafness(generation));
            if looked.is_err() {
                return self.note_look(generation, looked);
            }
        }
        let Some(known) = self.generation(generation) else { return };
        let reopened = match known.is_deaf() && known.can_serve() {
            true => self.look_for_new_listeners(generation),
            false => Ok(()),
        };
        let Some(known) = self.generation(generation) else { return };
        let looked = match known.phase() {
            Phase::Starting { .. } if matches!(known.origin(), Origin::Launched { .. }) => {
                self.look_for_listeners(generation)
            }
            Phase::Starting { .. } => self.look_at_found_candidate(generation),
            Phase::Primary => self.look_at_primary(generation),
            Phase::Clearing { .. } => self.look_at_queues(generation),
            Phase::Draining { .. } | Phase::Finishing { .. } => self.look_at_flows(generation),
            Phase::Parting { .. } => self.look_last(generation),
            Phase::Dead | Phase::Standby { .. } | Phase::Stopping { .. } => Ok(()),
        };
        self.note_look(generation, reopened.and(looked));
    }

    fn look_at_primary(&mut self, primary: GenerationId) -> Result<(), WorldError> {
        self.look_for_new_listeners(primary)?;
        self.look_for_endpoints(primary)?;
        self.still_unattributed(primary.service).map(drop)
    }

    /// A look that failed is made again, since nobody may report a second time what it was about.
    pub(in crate::daemon) fn note_look(
        &mut self,
        generation: GenerationId,
        looked: Result<(), WorldError>,
    ) {
        if self.generation(generation).is_none() {
            return self.moot(Trouble::Look(generation));
        }
        let name = self.record(generation.service).service.name();
        let what = format!("generation {} of {name}", generation.number);
        let trouble = Trouble::Look(generation);
        match looked {
            Ok(()) => self.over(trouble, &format!("{what} can be looked at again")),
            Err(problem) => {
                self.look_later(generation, RETRY);
                self.trouble(trouble, format!("cannot look at {what}: {}", problem.in_full()));
            }
        }
    }

    /// Whether a connection of the service may be anybody's, looked at anew: it waits to be accepted.
    pub(in crate::daemon) fn still_unattributed(
        &mut self,
        id: ServiceId,
    ) -> Result<bool, WorldError> {
        if self.unattributed.contains(&id) && self.attribute_flows(id)? == 0 {
            self.unattributed.remove(&id);
        }
        Ok(self.unattributed.contains(&id))
    }

    pub(in crate::daemon) fn warn_of(&mut self, generation: GenerationId, message: String) {
        self.note(generation, EventKind::Warning, message);
    }
}

/// Who has a connection.
pub(in crate::daemon) fn owner(flow: &Connection) -> Option<agent_ebpf::flow::GenerationKey> {
    flow.tag.as_deref().and_then(Datapath::parse_tag).map(|tag| tag.generation)
}

/// The ports of these endpoints, each once.
pub(in crate::daemon) fn ports(endpoints: &[Endpoint]) -> Vec<u16> {
    let mut ports: Vec<_> = endpoints.iter().map(|endpoint| endpoint.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The time that a drain has left.
pub(in crate::daemon) fn until_drained(phase: &Phase) -> Option<Duration> {
    match phase {
        Phase::Draining { deadline, .. } | Phase::Finishing { deadline, .. } => {
            Some(deadline.since(clock::now()))
        }
        Phase::Starting { .. }
        | Phase::Primary
        | Phase::Dead
        | Phase::Clearing { .. }
        | Phase::Standby { .. }
        | Phase::Parting { .. }
        | Phase::Stopping { .. } => None,
    }
}

/// The more there is to count, the rarer. A passed deadline ends nothing by itself: the look after it does.
pub(in crate::daemon) fn flow_look(cost: Duration, until_deadline: Duration) -> Duration {
    cost.saturating_mul(FLOW_SHARE).clamp(FLOW_LOOK, until_deadline.max(FLOW_LOOK))
}

/// Until the next look that nothing calls for: the looks just now took so long, and those at all flows cost so much.
fn interval(phase: &Phase, looked: Duration, cost: Duration) -> Option<Duration> {
    match phase {
        Phase::Clearing { .. } | Phase::Parting { .. } => {
            Some(looked.saturating_mul(QUEUE_SHARE).max(QUEUE_LOOK))
        }
        Phase::Draining { .. } | Phase::Finishing { .. } => {
            until_drained(phase).map(|left| flow_look(cost, left))
        }
        Phase::Starting { .. }
        | Phase::Primary
        | Phase::Dead
        | Phase::Standby { .. }
        | Phase::Stopping { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_many_flows_are_rare_but_not_late_for_the_deadline() {
        let [milliseconds, seconds] = [Duration::from_millis, Duration::from_secs];
        assert_eq!(flow_look(milliseconds(3), seconds(3_600)), seconds(1));
        assert_eq!(flow_look(milliseconds(250), seconds(3_600)), seconds(5));
        assert_eq!(flow_look(milliseconds(250), seconds(2)), seconds(2));
        assert_eq!(flow_look(milliseconds(250), Duration::ZERO), seconds(1));
    }
}
