//! A service: its generations, and what happens to them.

use std::{collections::HashSet, hash::Hash};

use agent_terms::{Endpoint, GenerationNumber, ServiceId, ServiceName};
use serde::{Deserialize, Serialize};

use super::{
    DrainPolicy, Effect, Event, Generation, Phase, Refusal, Rollout, RolloutId, Stop, Timestamp,
    drain::DEATH,
};

/// What one `attach` manages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its number in the kernel maps.
    pub(super) id: ServiceId,
    /// What people call it.
    pub(super) name: ServiceName,
    /// Where its clients connect to.
    pub(super) endpoints: Vec<Endpoint>,
    /// Those that live, oldest first.
    pub(super) generations: Vec<Generation>,
    /// Under way and ended, oldest first; of the ended ones the last 64.
    pub(super) rollouts: Vec<Rollout>,
    /// The last number given to a generation.
    pub(super) last_generation: GenerationNumber,
    /// The last number given to a rollout.
    pub(super) last_rollout: RolloutId,
}

impl Service {
    /// A service whose first generation was found serving.
    pub fn attached(
        id: ServiceId,
        name: ServiceName,
        endpoints: Vec<Endpoint>,
        first: Generation,
    ) -> Self {
        let last_generation = first.number;
        let rollouts = Vec::new();
        Self {
            id,
            name,
            endpoints,
            generations: vec![first],
            rollouts,
            last_generation,
            last_rollout: RolloutId(0),
        }
    }

    /// A service of which nothing is known but what was found: the last numbers given are those of the last ones found.
    pub fn derived(
        id: ServiceId,
        name: ServiceName,
        endpoints: Vec<Endpoint>,
        generations: Vec<Generation>,
        rollouts: Vec<Rollout>,
    ) -> Self {
        let last = generations.iter().map(|it| it.number).max();
        let last_generation = last.unwrap_or(GenerationNumber(0));
        let last_rollout = rollouts.last().map_or(RolloutId(0), |rollout| rollout.id);
        Self { id, name, endpoints, generations, rollouts, last_generation, last_rollout }
    }

    /// Its number in the kernel maps.
    pub const fn id(&self) -> ServiceId {
        self.id
    }

    /// What people call it.
    pub const fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Where its clients connect to.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Those that live, oldest first.
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// The cookies of all listeners that are known to be its own.
    pub fn known_listeners(&self) -> HashSet<u64> {
        self.generations.iter().flat_map(|it| &it.listeners).map(|it| it.cookie).collect()
    }

    /// Under way and ended, oldest first; of the ended ones the last 64.
    pub fn rollouts(&self) -> &[Rollout] {
        &self.rollouts
    }

    /// The last number given to a generation.
    pub const fn last_generation(&self) -> GenerationNumber {
        self.last_generation
    }

    /// The last number given to a rollout.
    pub const fn last_rollout(&self) -> RolloutId {
        self.last_rollout
    }

    /// Changes the state by what happened at `now`, and says what is to be done.
    ///
    /// An event about a generation that is in no phase to care (it went meanwhile, it was decided already) changes nothing.
    ///
    /// # Errors
    ///
    /// Refuses what cannot be done now; the state is then unchanged.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        let stopgap = self.stopgap();
        let mut effects = match event {
            Event::Upgrade(plan, origin) => self.begin_upgrade(&plan, origin, now)?,
            Event::Undo(drain) => self.undo(&drain, now)?,
            Event::Covers(number, listening) => self.note_cover(number, listening, now),
            Event::Accepted(number) => self.promote(number, now),
            Event::Stuck(number) => self.note_stuck(number, now),
            Event::Lacks(number, what) => self.note_lack(number, what),
            Event::NotYet(number, why) => self.note_obstacle(number, why),
            Event::Failed(number, reason) => self.give_up(number, &reason, now),
            Event::Restarted(listening, processes) => self.succeed(listening, processes, now),
            Event::CameBack => self.end_returned(now),
            Event::Exited(number) => self.note_exit(number, now),
            Event::Deaf(number) => self.note_deafness(number, now),
            Event::Listens(number) => self.note_listening(number),
            Event::ListenersChanged(number, listening) => self.note_listeners(number, listening),
            Event::ProcessesChanged(number, processes) => self.note_processes(number, processes),
            Event::EndpointsChanged(endpoints) => self.note_endpoints(endpoints),
            Event::MapsRebuilt(listening) => self.note_rebuilt(&listening, now),
            Event::Queues(number, queues) => self.note_queues(number, queues, now),
            Event::Flows(number, flows) => self.note_flows(number, flows, now),
            Event::LastLook(number, queues, flows) => {
                self.note_last_look(number, queues, flows, now)
            }
            Event::Told(number) => self.note_told(number, now),
            Event::Tick => self.note_time(now),
        };
        // First, as all steering: nobody is told to end, or forgotten, to whom it leads.
        if self.stopgap() != stopgap && !effects.iter().any(|it| matches!(it, Effect::Steer(_))) {
            effects.splice(0..0, self.steer());
        }
        self.trim_history();
        Ok(effects)
    }

    /// The next moment at which [`Event::Tick`] may change something.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.generations
            .iter()
            .filter_map(|generation| match generation.phase {
                Phase::Starting { ready_by, .. } => Some(ready_by),
                Phase::Clearing { until, .. } | Phase::Standby { until, .. } => Some(until),
                Phase::Draining { keep_until, ref drain, .. } => {
                    (drain.policy == DrainPolicy::Graceful).then_some(keep_until)
                }
                Phase::Finishing { deadline, .. } => Some(deadline),
                Phase::Stopping { stop: Stop::ToSignal { .. }, .. } => None,
                Phase::Stopping { stop: Stop::Signalled { kill_at }, .. } => Some(kill_at),
                Phase::Stopping { stop: Stop::Killed { at }, .. } => {
                    self.is_waited_for(generation.number).then(|| at.after(DEATH))
                }
                Phase::Parting { .. } | Phase::Primary | Phase::Dead => None,
            })
            .chain(self.next_settled())
            .min()
    }

    /// Whether [`Self::apply`] can have made it: what was read from somewhere may be anything. Each generation and each rollout
    /// has a number of its own, and there is a next one; one serves at most, and one is being made ready.
    pub fn is_sound(&self) -> bool {
        let numbers: Vec<_> = self.generations.iter().map(|it| it.number).collect();
        let rollouts: Vec<_> = self.rollouts.iter().map(|it| it.id).collect();
        let count =
            |is: fn(&Phase) -> bool| self.generations.iter().filter(|it| is(&it.phase)).count();
        are_below(&numbers, self.last_generation.next())
            && self.last_generation.next() > self.last_generation
            && are_below(&rollouts, self.last_rollout.next())
            && self.last_rollout.next() > self.last_rollout
            && count(|it| matches!(it, Phase::Primary | Phase::Dead)) <= 1
            && count(|it| matches!(it, Phase::Starting { .. })) <= 1
    }

    /// The generation with this number, if it lives.
    pub fn generation(&self, number: GenerationNumber) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == number)
    }

    /// The same, to be changed.
    pub(super) fn generation_mut(&mut self, number: GenerationNumber) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|generation| generation.number == number)
    }

    /// The one that takes new connections, or took them last.
    pub fn primary(&self) -> Option<&Generation> {
        self.generations
            .iter()
            .find(|generation| matches!(generation.phase, Phase::Primary | Phase::Dead))
    }

    /// The one that is being made ready.
    pub fn candidate(&self) -> Option<&Generation> {
        self.generations
            .iter()
            .find(|generation| matches!(generation.phase, Phase::Starting { .. }))
    }

    /// The rollout with this number, if it is remembered.
    pub fn rollout(&self, id: RolloutId) -> Option<&Rollout> {
        self.rollouts.iter().find(|rollout| rollout.id == id)
    }

    /// Steering first: the kernel must not look for a generation that is forgotten.
    pub(super) fn steer_without(&mut self, number: GenerationNumber) -> Vec<Effect> {
        let forget = self.remove(number);
        let mut effects = self.steer();
        effects.extend(forget);
        effects
    }

    pub(super) fn remove(&mut self, number: GenerationNumber) -> Vec<Effect> {
        self.generations.retain(|generation| generation.number != number);
        vec![Effect::Forget(number)]
    }
}

/// Whether these are different from each other, and all below another one.
fn are_below<T: Copy + Eq + Ord + Hash>(all: &[T], end: T) -> bool {
    let distinct: HashSet<T> = all.iter().copied().collect();
    distinct.len() == all.len() && all.iter().all(|it| *it < end)
}
