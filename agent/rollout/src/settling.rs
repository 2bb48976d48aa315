//! A new primary proves itself, or new connections go back.

use agent_terms::GenerationNumber;

use super::{Effect, Outcome, Phase, Rollout, Service, Status, Timestamp};

impl Service {
    /// The primary, while it has to prove itself.
    pub fn settling(&self) -> Option<GenerationNumber> {
        let primary = self.primary()?.number;
        let settles = self.rollouts.iter().any(|it| it.to == primary && it.is_settling());
        settles.then_some(primary)
    }

    /// Whether any new generation has to prove itself.
    pub fn settles(&self) -> bool {
        self.rollouts.iter().any(Rollout::is_settling)
    }

    /// A server that accepts nothing while more and more wait is of no use, though it lives and listens. Later it may just be
    /// busy.
    pub(super) fn note_stuck(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        if self.settling() != Some(number) {
            return Vec::new();
        }
        if let Some(generation) = self.generation_mut(number) {
            generation.stuck = true;
        }
        if self.previous().is_none() {
            let reason =
                "it accepted no more connections, and there is nobody to go back to".to_owned();
            self.end_rollouts_to(number, &Outcome::NotReady { reason }, now);
            return Vec::new();
        }
        self.go_back(number, format!("generation {number} accepted no more connections"), now)
    }

    /// After a time in which nobody looked: what a generation has proved until then is not known.
    pub(super) fn settle_anew(&mut self, now: Timestamp) {
        self.extend_settling(|it| it.settled.unwrap_or_default().max(now.after(it.settle)));
    }

    /// Gives new generations more time to prove themselves; those that they replaced are there as long.
    fn extend_settling(&mut self, until: impl Fn(&Rollout) -> Timestamp) {
        for rollout in self.rollouts.iter_mut().filter(|it| it.is_settling()) {
            let settled = until(rollout);
            rollout.settled = Some(settled);
            let old = self.generations.iter_mut().find(|it| it.number == rollout.from);
            if let Some(old) = old {
                old.phase.keep_until_at_least(settled);
            }
        }
    }

    /// Gives the new connections of the primary back to the one before, if that can take them. It leaves as it would have let
    /// the other one leave.
    pub(super) fn go_back(
        &mut self,
        number: GenerationNumber,
        reason: String,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(previous) = self.previous() else { return Vec::new() };
        let drain = self.generation(previous).and_then(|it| it.phase.drain()).cloned();
        self.take_back(number, reason, now);
        self.hand_over(previous, drain.as_ref().map(|drain| (drain, now)), now);
        self.steer()
    }

    /// What was said of a rollout that brought this generation in is no longer true, also if it had completed.
    pub(super) fn take_back(&mut self, number: GenerationNumber, reason: String, now: Timestamp) {
        let outcome = Outcome::RolledBack { reason };
        self.end_rollouts_to(number, &outcome, now);
        let last = self.rollouts.iter_mut().rfind(|it| it.to == number);
        if let Some(completed) = last.filter(|it| it.status == Status::Ended(Outcome::Completed)) {
            completed.end(outcome, now);
        }
    }

    /// Those whose time is up have settled.
    pub(super) fn settle(&mut self, now: Timestamp) {
        self.end_settling(now, |rollout| rollout.settled.is_none_or(|settled| settled <= now));
    }

    /// Another generation is about to be the primary, and proves itself until then. What one has not proved that is replaced
    /// before, nobody knows: those that were there before it are kept as long, to go back to. If the other one is itself one
    /// that was replaced too early, its time begins anew.
    pub(super) fn settle_later(
        &mut self,
        next: GenerationNumber,
        until: Timestamp,
        now: Timestamp,
    ) {
        let again = self.rollouts.iter().filter(|it| it.is_settling() && it.to == next);
        let until = again.map(|it| now.after(it.settle)).max().unwrap_or(until);
        self.extend_settling(|it| {
            let known = it.settled.filter(|_| it.to != next).unwrap_or_default();
            known.max(until)
        });
    }

    /// When the next one has settled.
    pub(super) fn next_settled(&self) -> Option<Timestamp> {
        let settling = self.rollouts.iter().filter(|it| it.is_settling());
        settling.map(|it| it.settled.unwrap_or_default()).min()
    }

    /// Whether a generation may not be told to end yet, because another one has to prove itself.
    pub(super) fn is_kept_to_settle(&self, number: GenerationNumber) -> bool {
        self.rollouts.iter().any(|it| it.from == number && it.is_settling())
    }

    /// A generation that has drained is kept: its rollout has ended, if it has settled.
    pub(super) fn complete_if_settled(&mut self, from: GenerationNumber, now: Timestamp) {
        if !self.is_kept_to_settle(from) {
            self.end_rollouts_from(from, &Outcome::Completed, now);
        }
    }

    /// A replaced generation has ended by itself. The new one has to prove itself all the same.
    pub(super) fn note_old_died(&mut self, from: GenerationNumber, flows: u64, now: Timestamp) {
        let waits = |it: &Rollout| it.is_settling() && flows == 0;
        let rollouts = self.rollouts.iter_mut().filter(|it| it.from == from && it.has_switched());
        for rollout in rollouts.filter(|it| !waits(it)) {
            rollout.end(Outcome::OldDied { flows }, now);
        }
    }

    fn end_settling(&mut self, now: Timestamp, which: impl Fn(&Rollout) -> bool) {
        let settled = self.rollouts.iter_mut().filter(|it| it.is_settling() && which(it));
        let from: Vec<_> = settled
            .map(|rollout| {
                rollout.status = Status::Draining;
                rollout.from
            })
            .collect();
        for from in from {
            match self.generation(from).map(|it| &it.phase) {
                Some(Phase::Standby { until, .. }) if *until > now => {
                    self.end_rollouts_from(from, &Outcome::Completed, now);
                }
                Some(_) => {}
                None => self.note_old_died(from, 0, now),
            }
        }
    }
}
