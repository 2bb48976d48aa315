//! What is remembered of upgrades and undos.

use std::time::Duration;

use agent_terms::GenerationNumber;

use super::{Kind, Outcome, Rollout, RolloutId, Service, Status, Timestamp};

/// How many ended rollouts are remembered.
const HISTORY: usize = 64;

impl Service {
    pub(super) fn record(
        &mut self,
        kind: Kind,
        from: GenerationNumber,
        to: GenerationNumber,
        status: Status,
        began: Timestamp,
    ) -> RolloutId {
        let id = self.last_rollout.next();
        self.last_rollout = id;
        self.rollouts.push(Rollout {
            id,
            kind,
            from,
            to,
            release: self.generation(to).and_then(|it| it.release.clone()),
            began,
            switched: None,
            settled: None,
            settle: Duration::ZERO,
            ended: None,
            waited: 0,
            status,
        });
        id
    }

    pub(super) fn end_rollouts_from(
        &mut self,
        from: GenerationNumber,
        outcome: &Outcome,
        now: Timestamp,
    ) {
        for rollout in self.rollouts.iter_mut().filter(|it| it.from == from && it.has_switched()) {
            rollout.end(outcome.clone(), now);
        }
    }

    pub(super) fn end_rollouts_to(
        &mut self,
        to: GenerationNumber,
        outcome: &Outcome,
        now: Timestamp,
    ) {
        for rollout in self.rollouts.iter_mut().filter(|it| it.to == to && !it.is_ended()) {
            rollout.end(outcome.clone(), now);
        }
    }

    /// Whether a rollout ends only when this generation does.
    pub(super) fn is_waited_for(&self, from: GenerationNumber) -> bool {
        self.rollouts.iter().any(|it| it.from == from && it.has_switched())
    }

    /// Of those that were seen at once, the most.
    pub(super) fn note_waited(&mut self, from: GenerationNumber, count: u64) {
        for rollout in self.rollouts.iter_mut().filter(|it| it.from == from && it.has_switched()) {
            rollout.waited = rollout.waited.max(count);
        }
    }

    pub(super) fn trim_history(&mut self) {
        let mut surplus =
            self.rollouts.iter().filter(|it| it.is_ended()).count().saturating_sub(HISTORY);
        self.rollouts.retain(|rollout| {
            let drop = surplus > 0 && rollout.is_ended();
            surplus -= usize::from(drop);
            !drop
        });
    }
}
