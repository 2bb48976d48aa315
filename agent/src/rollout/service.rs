//! A service: its generations, and what happens to them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    DrainPlan, Generation, Kind, Origin, Outcome, Phase, Plan, PortHold, Rollout, RolloutId,
    Status, Timestamp,
};
use crate::service::{Endpoint, GenerationNumber, ServiceId, ServiceName};

/// What one `attach` manages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its number in the kernel maps.
    pub id: ServiceId,
    /// What people call it.
    pub name: ServiceName,
    /// Where its clients connect to.
    pub endpoints: Vec<Endpoint>,
    /// Those that live, oldest first.
    pub generations: Vec<Generation>,
    /// Under way and ended, oldest first; of the ended ones the last 64.
    pub rollouts: Vec<Rollout>,
    /// The last number given to a generation.
    pub last_generation: GenerationNumber,
    /// The last number given to a rollout.
    pub last_rollout: RolloutId,
}

/// How many ended rollouts are remembered.
const HISTORY: usize = 64;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An upgrade was asked for; `origin` is what it will bring.
    Upgrade(Plan, Origin),
    /// Somebody wants the previous generation back.
    Undo(DrainPlan),
    /// The candidate listens on every endpoint, and its listeners are in the kernel maps.
    Ready(GenerationNumber, PortHold),
    /// The candidate is not ready, for this reason; it may become so.
    NotYet(GenerationNumber, String),
    /// The candidate cannot become ready.
    Failed(GenerationNumber, String),
    /// No process of the generation is left.
    Exited(GenerationNumber),
    /// The kernel queues of a replaced generation were looked at.
    Queues(GenerationNumber, Queues),
    /// The flows of a replaced generation were counted, by asking for the sockets themselves.
    Flows(GenerationNumber, Flows),
    /// Time has passed.
    Tick,
}

impl Event {
    /// Whether somebody asked for it, who can be told no. All others have happened, whether they suit or not.
    pub const fn is_request(&self) -> bool {
        match self {
            Self::Upgrade(..) | Self::Undo(..) => true,
            Self::Ready(..)
            | Self::NotYet(..)
            | Self::Failed(..)
            | Self::Exited(..)
            | Self::Queues(..)
            | Self::Flows(..)
            | Self::Tick => false,
        }
    }
}

/// What the kernel holds for a listener that has not accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// Nothing.
    Empty,
    /// Connections to accept, or requests that are half-open.
    Waiting,
}

/// The flows of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    /// How many are open.
    pub open: u64,
    /// How long every one of them has been idle at least.
    pub idle: Duration,
}

/// What is to be done. Repeating one that was done changes nothing, but for [`Effect::Launch`], which is never repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the candidate's processes.
    Launch(GenerationNumber),
    /// Give new connections to these.
    Steer(Targets),
    /// Tell the root processes of a generation to end.
    Signal(GenerationNumber, i32),
    /// End every process of a generation.
    Kill(GenerationNumber),
    /// Remove every trace of a generation that has no process left.
    Forget(GenerationNumber),
}

impl Effect {
    /// Whether it can be taken back: only then may it come before the state that it follows from is on disk.
    pub const fn can_be_taken_back(&self) -> bool {
        match self {
            Self::Steer(_) => true,
            Self::Launch(_) | Self::Signal(..) | Self::Kill(_) | Self::Forget(_) => false,
        }
    }
}

/// Which generations the kernel may give a new connection to, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Takes them.
    pub primary: GenerationNumber,
    /// Take them if the primary has no listener left; the youngest first.
    pub standbys: Vec<GenerationNumber>,
}

/// Why an event that somebody asked for was not accepted. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One change at a time.
    #[error("generation {0} is being made ready by rollout {1}")]
    RolloutUnderWay(GenerationNumber, RolloutId),
    /// There is no generation to go back to.
    #[error("no previous generation is left to go back to")]
    NothingToUndo,
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

    /// Changes the state by what happened at `now`, and says what is to be done.
    ///
    /// An event about a generation that is in no phase to care (it went meanwhile, it was decided already) changes nothing.
    ///
    /// # Errors
    ///
    /// Refuses what cannot be done now; the state is then unchanged.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        let effects = match event {
            Event::Upgrade(plan, origin) => self.begin_upgrade(&plan, origin, now)?,
            Event::Undo(drain) => self.undo(&drain, now)?,
            Event::Ready(number, hold) => self.promote(number, hold, now),
            Event::NotYet(number, why) => self.note_obstacle(number, why),
            Event::Failed(number, reason) => self.give_up(number, &reason, now),
            Event::Exited(number) => self.note_exit(number, now),
            Event::Queues(number, queues) => self.note_queues(number, queues, now),
            Event::Flows(number, flows) => self.note_flows(number, flows, now),
            Event::Tick => self.note_time(now),
        };
        self.trim_history();
        Ok(effects)
    }

    /// What to do again after a restart, because nobody knows whether it was done.
    pub fn resume(&self) -> Vec<Effect> {
        let mut effects: Vec<_> = self.targets().map(Effect::Steer).into_iter().collect();
        for generation in &self.generations {
            match generation.phase {
                Phase::Stopping { killed: true, .. } => {
                    effects.push(Effect::Kill(generation.number));
                }
                Phase::Stopping { killed: false, signal, .. } | Phase::Finishing { signal, .. } => {
                    effects.push(Effect::Signal(generation.number, signal));
                }
                Phase::Starting { .. }
                | Phase::Primary
                | Phase::Dead
                | Phase::Settling { .. }
                | Phase::Draining { .. } => {}
            }
        }
        effects
    }

    /// The next moment at which [`Event::Tick`] may change something.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.generations
            .iter()
            .filter_map(|generation| match generation.phase {
                Phase::Starting { ready_by, .. } => Some(ready_by),
                Phase::Settling { until, .. } => Some(until),
                Phase::Draining { deadline, .. } | Phase::Finishing { deadline, .. } => {
                    Some(deadline)
                }
                Phase::Stopping { kill_at, killed: false, .. } => Some(kill_at),
                Phase::Stopping { killed: true, .. } | Phase::Primary | Phase::Dead => None,
            })
            .min()
    }

    /// The generation with this number, if it lives.
    pub fn generation(&self, number: GenerationNumber) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == number)
    }

    /// The same, to be changed.
    pub fn generation_mut(&mut self, number: GenerationNumber) -> Option<&mut Generation> {
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

    /// Where new connections should go.
    pub fn targets(&self) -> Option<Targets> {
        let primary = self.primary()?.number;
        let younger_first = self.generations.iter().rev();
        let standbys = younger_first
            .filter(|it| it.can_serve() && it.number != primary)
            .map(|it| it.number)
            .collect();
        Some(Targets { primary, standbys })
    }

    fn begin_upgrade(
        &mut self,
        plan: &Plan,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        self.refuse_while_making_ready()?;
        let number = GenerationNumber(self.last_generation.0 + 1);
        let from = self.primary().map_or(self.last_generation, |primary| primary.number);
        self.last_generation = number;
        let launch = matches!(origin, Origin::Launched { .. });
        self.generations.push(Generation {
            number,
            phase: Phase::Starting {
                ready_by: now.after(plan.ready_timeout),
                obstacle: None,
                drain: plan.drain.clone(),
            },
            origin,
            hold: PortHold::Unbound,
            since: now,
            processes: Vec::new(),
            listeners: Vec::new(),
        });
        self.record(Kind::Upgrade, from, number, Status::MakingReady, now);
        Ok(if launch { vec![Effect::Launch(number)] } else { Vec::new() })
    }

    fn undo(&mut self, drain: &DrainPlan, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        if let Some(candidate) = self.candidate() {
            return Ok(self.give_up(candidate.number, "undone", now));
        }
        let previous = self.previous().ok_or(Refusal::NothingToUndo)?;
        let current = self.primary().ok_or(Refusal::NothingToUndo)?.number;
        self.end_rollouts_to(current, &Outcome::RolledBack { reason: "undone".to_owned() }, now);
        self.hand_over(previous, Some(drain), now);
        let id = self.record(Kind::Undo, current, previous, Status::Draining, now);
        if let Some(rollout) = self.rollouts.iter_mut().find(|rollout| rollout.id == id) {
            rollout.switched = Some(now);
        }
        Ok(self.steer())
    }

    fn promote(&mut self, number: GenerationNumber, hold: PortHold, now: Timestamp) -> Vec<Effect> {
        let Some(candidate) = self.generation_mut(number) else { return Vec::new() };
        let Phase::Starting { drain, .. } = candidate.phase.clone() else { return Vec::new() };
        candidate.hold = hold;
        let dead: Vec<_> = self
            .generations
            .iter()
            .filter(|it| it.phase == Phase::Dead)
            .map(|it| it.number)
            .collect();
        let replaced = self.hand_over(number, Some(&drain), now);
        for rollout in self.rollouts.iter_mut().filter(|it| it.to == number && !it.is_ended()) {
            rollout.switched = Some(now);
            rollout.status = Status::Draining;
            // Not always the one that was the primary when the rollout began: that one may have died meanwhile.
            match replaced {
                Some(replaced) => rollout.from = replaced,
                None => rollout.end(Outcome::Completed, now),
            }
        }
        let mut effects = self.steer();
        effects.extend(dead.into_iter().map(Effect::Forget));
        effects
    }

    /// Makes `number` the primary and, with a plan, starts the drain of the live one before, which it returns.
    fn hand_over(
        &mut self,
        number: GenerationNumber,
        drain: Option<&DrainPlan>,
        now: Timestamp,
    ) -> Option<GenerationNumber> {
        let mut replaced = None;
        for generation in &mut self.generations {
            if generation.number == number {
                generation.phase = Phase::Primary;
            } else if let (Phase::Primary, Some(drain)) = (&generation.phase, drain) {
                let until = now.after(drain.queue_timeout);
                generation.phase = Phase::Settling { until, quiet: false, drain: drain.clone() };
                replaced = Some(generation.number);
            }
        }
        self.generations.retain(|generation| generation.phase != Phase::Dead);
        // Whoever waits for its drain waits in vain: it serves again.
        let reason = format!("generation {number} serves again");
        self.end_rollouts_from(number, &Outcome::RolledBack { reason }, now);
        replaced
    }

    fn note_obstacle(&mut self, number: GenerationNumber, why: String) -> Vec<Effect> {
        if let Some(Phase::Starting { obstacle, .. }) =
            self.generation_mut(number).map(|it| &mut it.phase)
        {
            *obstacle = Some(why);
        }
        Vec::new()
    }

    /// A candidate that will not serve: nobody was steered to it, so it can be told to end at once.
    fn give_up(&mut self, number: GenerationNumber, reason: &str, now: Timestamp) -> Vec<Effect> {
        let Some(candidate) = self.generation_mut(number) else { return Vec::new() };
        let Phase::Starting { drain, .. } = candidate.phase.clone() else { return Vec::new() };
        let found = candidate.origin == Origin::Found;
        self.end_rollouts_to(number, &Outcome::NotReady { reason: reason.to_owned() }, now);
        if found {
            // Somebody else's process: it was offered to us, and goes on without us.
            self.generations.retain(|generation| generation.number != number);
            return vec![Effect::Forget(number)];
        }
        self.stop(number, &drain, 0, now)
    }

    fn note_exit(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(phase) = self.generation(number).map(|generation| generation.phase.clone()) else {
            return Vec::new();
        };
        match phase {
            Phase::Starting { obstacle, .. } => {
                let reason = explained("it exited before it was ready", obstacle.as_deref());
                self.end_rollouts_to(number, &Outcome::NotReady { reason }, now);
                self.remove(number)
            }
            Phase::Primary => self.replace_dead_primary(number, now),
            Phase::Dead => Vec::new(),
            Phase::Settling { .. } | Phase::Draining { .. } => {
                self.end_rollouts_from(number, &Outcome::OldDied, now);
                self.steer_without(number)
            }
            Phase::Finishing { .. } => {
                self.end_rollouts_from(number, &Outcome::Completed, now);
                self.remove(number)
            }
            Phase::Stopping { flows_left, .. } => {
                let outcome = if flows_left == 0 {
                    Outcome::Completed
                } else {
                    Outcome::DeadlinePassed { flows_left }
                };
                self.end_rollouts_from(number, &outcome, now);
                self.remove(number)
            }
        }
    }

    /// The kernel has fallen back already, on the first packet that found no listener; this makes it official.
    fn replace_dead_primary(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(previous) = self.previous() else {
            if let Some(dead) = self.generation_mut(number) {
                dead.phase = Phase::Dead;
            }
            self.end_rollouts_from(number, &Outcome::OldDied, now);
            return Vec::new();
        };
        let reason = format!("generation {number} died");
        self.end_rollouts_to(number, &Outcome::RolledBack { reason }, now);
        self.hand_over(previous, None, now);
        self.steer_without(number)
    }

    /// The youngest replaced generation that still can serve.
    fn previous(&self) -> Option<GenerationNumber> {
        let replaced =
            |it: &&Generation| matches!(it.phase, Phase::Settling { .. } | Phase::Draining { .. });
        self.generations.iter().filter(replaced).map(|it| it.number).max()
    }

    pub(super) fn steer(&self) -> Vec<Effect> {
        self.targets().map(Effect::Steer).into_iter().collect()
    }

    /// Steering first: the kernel must not look for a generation that is forgotten.
    fn steer_without(&mut self, number: GenerationNumber) -> Vec<Effect> {
        let forget = self.remove(number);
        let mut effects = self.steer();
        effects.extend(forget);
        effects
    }

    fn remove(&mut self, number: GenerationNumber) -> Vec<Effect> {
        self.generations.retain(|generation| generation.number != number);
        vec![Effect::Forget(number)]
    }

    fn refuse_while_making_ready(&self) -> Result<(), Refusal> {
        let Some(candidate) = self.candidate() else { return Ok(()) };
        let rollout = self.rollouts.iter().rfind(|rollout| rollout.to == candidate.number);
        Err(Refusal::RolloutUnderWay(
            candidate.number,
            rollout.map_or(self.last_rollout, |rollout| rollout.id),
        ))
    }

    fn record(
        &mut self,
        kind: Kind,
        from: GenerationNumber,
        to: GenerationNumber,
        status: Status,
        began: Timestamp,
    ) -> RolloutId {
        let id = RolloutId(self.last_rollout.0 + 1);
        self.last_rollout = id;
        self.rollouts.push(Rollout {
            id,
            kind,
            from,
            to,
            began,
            switched: None,
            ended: None,
            status,
        });
        id
    }

    fn end_rollouts_from(&mut self, from: GenerationNumber, outcome: &Outcome, now: Timestamp) {
        for rollout in
            self.rollouts.iter_mut().filter(|it| it.from == from && it.status == Status::Draining)
        {
            rollout.end(outcome.clone(), now);
        }
    }

    fn end_rollouts_to(&mut self, to: GenerationNumber, outcome: &Outcome, now: Timestamp) {
        for rollout in self.rollouts.iter_mut().filter(|it| it.to == to && !it.is_ended()) {
            rollout.end(outcome.clone(), now);
        }
    }

    fn trim_history(&mut self) {
        let mut surplus =
            self.rollouts.iter().filter(|it| it.is_ended()).count().saturating_sub(HISTORY);
        self.rollouts.retain(|rollout| {
            let drop = surplus > 0 && rollout.is_ended();
            surplus -= usize::from(drop);
            !drop
        });
    }
}

/// A reason, with what is known about it.
pub(super) fn explained(reason: &str, obstacle: Option<&str>) -> String {
    obstacle.map_or_else(|| reason.to_owned(), |obstacle| format!("{reason}: {obstacle}"))
}
