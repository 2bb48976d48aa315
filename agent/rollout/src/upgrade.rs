//! The operator's part: an upgrade begins, its candidate becomes ready or not, somebody wants the previous one back.

use agent_terms::{GenerationNumber, Release};

use super::{
    DrainPlan, Effect, Generation, Kind, Listening, Origin, Outcome, Phase, Plan, Readiness,
    Refusal, Service, Status, Timestamp, UNDONE,
};

impl Service {
    pub(super) fn begin_upgrade(
        &mut self,
        plan: &Plan,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        self.refuse_while_making_ready()?;
        let number = self.last_generation.next();
        let from = self.primary().map_or(self.last_generation, |primary| primary.number);
        self.last_generation = number;
        let launch = matches!(origin, Origin::Launched { .. });
        let phase = Phase::Starting {
            ready_by: now.after(plan.ready_timeout),
            ready: plan.ready,
            listens: false,
            settle: plan.settle,
            obstacle: None,
            drain: plan.drain.clone(),
        };
        let release = plan.release.clone();
        self.generations
            .push(Generation { release, ..Generation::new(number, phase, origin, now) });
        self.record(Kind::Upgrade, from, number, Status::MakingReady, now);
        Ok(if launch { vec![Effect::Launch(number)] } else { Vec::new() })
    }

    /// The generation of this release that is being made ready, or else serves and can: one that has gone deaf or is stuck
    /// does not, and bringing it anew is what is meant then.
    pub fn newest_of(&self, release: &Release) -> Option<GenerationNumber> {
        let serves =
            self.primary().filter(|it| it.phase == Phase::Primary && !it.deaf && !it.stuck);
        let newest = self.candidate().or(serves)?;
        (newest.release.as_ref() == Some(release)).then_some(newest.number)
    }

    pub(super) fn undo(
        &mut self,
        drain: &DrainPlan,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        if let Some(candidate) = self.candidate() {
            return Ok(self.give_up(candidate.number, UNDONE, now));
        }
        let previous = self.previous().ok_or(Refusal::NothingToUndo)?;
        let current = self.primary().ok_or(Refusal::NothingToUndo)?.number;
        self.end_rollouts_to(current, &Outcome::RolledBack { reason: UNDONE.to_owned() }, now);
        self.hand_over(previous, Some((drain, now)), now);
        let id = self.record(Kind::Undo, current, previous, Status::Draining, now);
        if let Some(rollout) = self.rollouts.iter_mut().find(|rollout| rollout.id == id) {
            rollout.switched = Some(now);
        }
        Ok(self.steer())
    }

    /// One that listens is asked to accept. Where nobody serves, new connections wait for it meanwhile.
    pub(super) fn note_cover(
        &mut self,
        number: GenerationNumber,
        listening: Listening,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(candidate) = self.generation_mut(number) else { return Vec::new() };
        candidate.listen_by(listening);
        let Phase::Starting { ready, listens, obstacle, .. } = &mut candidate.phase else {
            return Vec::new();
        };
        if !std::mem::replace(listens, true) {
            *obstacle = None;
        }
        match ready {
            Readiness::Accept => vec![Effect::Probe(number)],
            Readiness::Listen => self.promote(number, now),
        }
    }

    pub(super) fn promote(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(candidate) = self.generation_mut(number) else { return Vec::new() };
        let Phase::Starting { drain, settle, .. } = candidate.phase.clone() else {
            return Vec::new();
        };
        let dead: Vec<_> = self
            .generations
            .iter()
            .filter(|it| it.phase == Phase::Dead)
            .map(|it| it.number)
            .collect();
        let settled = now.after(settle);
        let replaced = self.hand_over(number, Some((&drain, settled)), now);
        for rollout in self.rollouts.iter_mut().filter(|it| it.to == number && !it.is_ended()) {
            rollout.switched = Some(now);
            (rollout.settle, rollout.settled) = (settle, Some(settled));
            rollout.status = if settled > now { Status::Settling } else { Status::Draining };
            // Not always the one that was the primary when the rollout began: that one may have died meanwhile.
            match replaced {
                Some(replaced) => rollout.from = replaced,
                None if rollout.is_settling() => {}
                None => rollout.end(Outcome::Completed, now),
            }
        }
        let mut effects = self.steer();
        effects.extend(dead.into_iter().map(Effect::Forget));
        effects
    }

    pub(super) fn note_lack(&mut self, number: GenerationNumber, why: String) -> Vec<Effect> {
        if let Some(Phase::Starting { listens, .. }) =
            self.generation_mut(number).map(|it| &mut it.phase)
        {
            *listens = false;
        }
        self.note_obstacle(number, why)
    }

    pub(super) fn note_obstacle(&mut self, number: GenerationNumber, why: String) -> Vec<Effect> {
        if let Some(Phase::Starting { obstacle, .. }) =
            self.generation_mut(number).map(|it| &mut it.phase)
        {
            *obstacle = Some(why);
        }
        Vec::new()
    }

    /// A candidate that will not serve. It can be told to end at once: nobody was steered to it, but for want of anybody else.
    pub(super) fn give_up(
        &mut self,
        number: GenerationNumber,
        reason: &str,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(candidate) = self.generation_mut(number) else { return Vec::new() };
        let Phase::Starting { drain, .. } = candidate.phase.clone() else { return Vec::new() };
        let found = candidate.origin == Origin::Found;
        self.end_rollouts_to(number, &Outcome::NotReady { reason: reason.to_owned() }, now);
        if found {
            // Somebody else's process: it was offered to us, and goes on without us.
            return self.remove(number);
        }
        self.stop(number, &drain, 0, now)
    }

    fn refuse_while_making_ready(&self) -> Result<(), Refusal> {
        let Some(candidate) = self.candidate() else { return Ok(()) };
        let rollout = self.rollouts.iter().rfind(|rollout| rollout.to == candidate.number);
        Err(Refusal::RolloutUnderWay(
            candidate.number,
            rollout.map_or(self.last_rollout, |rollout| rollout.id),
        ))
    }
}
