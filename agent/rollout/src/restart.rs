//! A server that somebody else has started anew.

use std::time::Duration;

use agent_terms::{GenerationNumber, ProcessIdentity};

use super::{
    DrainPlan, Effect, Generation, Kind, Listening, Origin, Phase, Readiness, Service, Status,
    Timestamp,
};

impl Service {
    /// Whether a generation takes new connections.
    pub fn is_served(&self) -> bool {
        self.generations.iter().any(|it| it.phase == Phase::Primary && !it.deaf)
    }

    /// Whether a server that somebody else starts is of use: as the next generation, or to fall back to while the new one has
    /// to prove itself. A candidate does not keep it from that: one that only starts serves nobody, and finds the port taken by
    /// whoever is not known.
    pub fn may_take_in(&self) -> bool {
        !self.is_served() || self.settling().is_some() && self.previous().is_none()
    }

    /// The number of the next generation.
    pub fn next_number(&self) -> GenerationNumber {
        self.last_generation.next()
    }

    /// Connections go there already, by the kernel's own lookup; this makes it official. One that lives and is deaf drains
    /// by the default plan: nobody said another one.
    pub(super) fn succeed(
        &mut self,
        listening: Listening,
        processes: Vec<ProcessIdentity>,
        now: Timestamp,
    ) -> Vec<Effect> {
        if !self.may_take_in() {
            return Vec::new();
        }
        if self.is_served() {
            return self.stand_by(listening, processes, now);
        }
        let number = self.next_number();
        let from = self.primary().map_or(self.last_generation, |primary| primary.number);
        self.last_generation = number;
        let phase = Phase::Starting {
            ready_by: now,
            ready: Readiness::Listen,
            listens: true,
            settle: Duration::ZERO,
            obstacle: None,
            drain: DrainPlan::default(),
        };
        let generation = Generation::new(number, phase, Origin::Found, now);
        self.generations.push(Generation { processes, ..generation });
        self.record(Kind::Restart, from, number, Status::MakingReady, now);
        self.note_cover(number, listening, now)
    }

    /// The primary has to prove itself, and who could have taken over has ended and come back. It is told to end when that is
    /// over, as the one before would have been.
    fn stand_by(
        &mut self,
        listening: Listening,
        processes: Vec<ProcessIdentity>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let number = self.next_number();
        self.last_generation = number;
        let known: Vec<_> = self.generations.iter().map(|it| it.number).collect();
        let mut until = now;
        for rollout in self.rollouts.iter_mut().filter(|it| it.is_settling()) {
            until = until.max(rollout.settled.unwrap_or_default());
            if !known.contains(&rollout.from) {
                rollout.from = number;
            }
        }
        let phase = Phase::Standby { until, drain: DrainPlan::default() };
        let mut generation = Generation::new(number, phase, Origin::Found, now);
        generation.processes = processes;
        generation.listen_by(listening);
        self.generations.push(generation);
        self.steer()
    }

    /// Whoever starts it again was told to end only through its server. Steering never leads to this one: nobody has a flow
    /// there, and it is told to end at once.
    pub(super) fn end_returned(&mut self, now: Timestamp) -> Vec<Effect> {
        if !self.is_served() {
            return Vec::new();
        }
        let number = self.next_number();
        self.last_generation = number;
        let drain = DrainPlan::default();
        let unheard = Phase::Parting { until: now, deadline: now, drain: drain.clone() };
        let returned = Generation::new(number, unheard, Origin::Found, now);
        self.generations.push(Generation { deaf: true, ..returned });
        self.stop(number, &drain, 0, now)
    }
}
