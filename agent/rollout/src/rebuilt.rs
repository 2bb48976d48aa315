//! The kernel maps were lost, and are made anew.

use std::collections::BTreeSet;

use agent_terms::GenerationNumber;

use super::{DrainPlan, DrainPolicy, Effect, Generation, Phase, Service, Stop, Timestamp};

impl Service {
    /// While nothing steered, any generation that listens may have got new connections: its queues are waited for once more, and its
    /// flows as long as was asked for. That goes for one, too, that was to be told to end and was not: it listens still (see
    /// [`Self::resume`]).
    pub(super) fn note_rebuilt(
        &mut self,
        listening: &BTreeSet<GenerationNumber>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let before = self.targets();
        let failed = self.rollouts.iter().filter(|it| it.switched.is_none()).map(|it| it.to);
        let failed: BTreeSet<_> = failed.collect();
        for generation in &mut self.generations {
            let number = generation.number;
            generation.leave_anew(now);
            if listening.contains(&number) {
                generation.part_anew(!failed.contains(&number), now);
            }
        }
        if self.targets() == before { Vec::new() } else { self.steer() }
    }
}

impl Generation {
    /// One that was replaced.
    fn leave_anew(&mut self, now: Timestamp) {
        let (drain, keep_until) = match &self.phase {
            Phase::Clearing { drain, keep_until, .. }
            | Phase::Draining { drain, keep_until, .. } => (drain, *keep_until),
            Phase::Standby { drain, until } => (drain, *until),
            Phase::Parting { drain, .. } if !self.deaf => (drain, Timestamp::default()),
            Phase::Starting { .. }
            | Phase::Primary
            | Phase::Dead
            | Phase::Parting { .. }
            | Phase::Finishing { .. }
            | Phase::Stopping { .. } => return,
        };
        let (until, drain) = (now.after(drain.queue_timeout), drain.clone());
        self.phase = Phase::Clearing { until, keep_until, drain };
    }

    /// One that was to be told to end, and that nobody falls back to any more. Flows of one that never served are not waited for: it would
    /// be steered to meanwhile.
    fn part_anew(&mut self, has_served: bool, now: Timestamp) {
        let waits = has_served && !self.deaf;
        let (drain, deadline) = match &self.phase {
            Phase::Finishing { deadline, signal, told: false } => {
                let (policy, signal) = (DrainPolicy::Graceful, *signal);
                (DrainPlan { policy, signal, ..DrainPlan::default() }, *deadline)
            }
            Phase::Stopping { stop: Stop::ToSignal { .. }, patience, signal, .. } => {
                let (signal, stop_timeout) = (*signal, *patience);
                let drain = DrainPlan { signal, stop_timeout, ..DrainPlan::default() };
                let deadline = if waits { now.after(drain.timeout) } else { now };
                (drain, deadline)
            }
            Phase::Parting { drain, deadline, .. } => (drain.clone(), *deadline),
            Phase::Starting { .. }
            | Phase::Primary
            | Phase::Dead
            | Phase::Clearing { .. }
            | Phase::Draining { .. }
            | Phase::Standby { .. }
            | Phase::Finishing { .. }
            | Phase::Stopping { .. } => return,
        };
        self.deaf = true;
        self.phase = Phase::Parting { until: now.after(drain.queue_timeout), deadline, drain };
    }
}
