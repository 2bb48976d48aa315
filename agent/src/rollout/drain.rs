//! How a replaced generation leaves: queues, flows, signal, kill.

use super::{
    DrainPlan, DrainPolicy, Effect, Phase, Service, Timestamp,
    service::{Flows, Queues, explained},
};
use crate::service::GenerationNumber;

impl Service {
    /// Two empty looks in a row, because a connection can be between the two queues at one of them.
    pub(super) fn note_queues(
        &mut self,
        number: GenerationNumber,
        queues: Queues,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        let Phase::Settling { quiet, ref drain, until } = generation.phase else {
            return Vec::new();
        };
        let drain = drain.clone();
        match queues {
            Queues::Empty if quiet => self.settle(number, &drain, now),
            Queues::Empty => {
                generation.phase = Phase::Settling { until, quiet: true, drain };
                Vec::new()
            }
            Queues::Waiting => {
                generation.phase = Phase::Settling { until, quiet: false, drain };
                Vec::new()
            }
        }
    }

    /// What the flows say, counted from the sockets themselves and not from the counters: a signal cannot be taken back.
    pub(super) fn note_flows(
        &mut self,
        number: GenerationNumber,
        flows: Flows,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        if let Phase::Finishing { flows_left, .. } = &mut generation.phase {
            *flows_left = flows.open;
        }
        let Phase::Draining { deadline, ref drain } = generation.phase else { return Vec::new() };
        let drain = drain.clone();
        let left = match drain.policy {
            _ if flows.open == 0 => Some(0),
            _ if now >= deadline => Some(flows.open),
            DrainPolicy::Patient { idle: Some(idle) } if flows.idle >= idle => Some(0),
            DrainPolicy::Patient { .. } | DrainPolicy::Graceful => None,
        };
        left.map_or_else(Vec::new, |left| self.stop(number, &drain, left, now))
    }

    /// Deadlines. A passed drain deadline alone signals nobody: the next count of the flows does, and says how many were left.
    pub(super) fn note_time(&mut self, now: Timestamp) -> Vec<Effect> {
        let numbers: Vec<_> = self.generations.iter().map(|generation| generation.number).collect();
        numbers.into_iter().flat_map(|number| self.note_time_of(number, now)).collect()
    }

    fn note_time_of(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        match generation.phase.clone() {
            Phase::Starting { ready_by, obstacle, .. } if now >= ready_by => {
                let waited = humantime::format_duration(now.since(generation.since));
                let reason = format!("it did not listen on every endpoint within {waited}");
                let reason = explained(&reason, obstacle.as_deref());
                let failed = super::Event::Failed(number, reason);
                self.apply(failed, now).unwrap_or_default()
            }
            Phase::Settling { until, drain, .. } if now >= until => {
                self.settle(number, &drain, now)
            }
            Phase::Stopping { kill_at, killed: false, signal, flows_left }
            | Phase::Finishing { deadline: kill_at, signal, flows_left }
                if now >= kill_at =>
            {
                generation.phase = Phase::Stopping { kill_at, killed: true, signal, flows_left };
                vec![Effect::Kill(number)]
            }
            Phase::Starting { .. }
            | Phase::Primary
            | Phase::Dead
            | Phase::Settling { .. }
            | Phase::Draining { .. }
            | Phase::Finishing { .. }
            | Phase::Stopping { .. } => Vec::new(),
        }
    }

    /// The queues are empty, or their time is up.
    fn settle(
        &mut self,
        number: GenerationNumber,
        drain: &DrainPlan,
        now: Timestamp,
    ) -> Vec<Effect> {
        match drain.policy {
            DrainPolicy::Graceful => {
                let deadline = now.after(drain.timeout);
                self.signal(
                    number,
                    Phase::Finishing { deadline, signal: drain.signal, flows_left: 0 },
                    drain.signal,
                )
            }
            DrainPolicy::Patient { .. } => {
                if let Some(generation) = self.generation_mut(number) {
                    generation.phase = Phase::Draining {
                        deadline: now.after(drain.timeout),
                        drain: drain.clone(),
                    };
                }
                Vec::new()
            }
        }
    }

    pub(super) fn stop(
        &mut self,
        number: GenerationNumber,
        drain: &DrainPlan,
        flows_left: u64,
        now: Timestamp,
    ) -> Vec<Effect> {
        let kill_at = now.after(drain.stop_timeout);
        let stopping = Phase::Stopping { kill_at, killed: false, signal: drain.signal, flows_left };
        self.signal(number, stopping, drain.signal)
    }

    /// Steering first: a generation that is about to end must not be fallen back to.
    fn signal(&mut self, number: GenerationNumber, phase: Phase, signal: i32) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        generation.phase = phase;
        let mut effects = self.steer();
        effects.push(Effect::Signal(number, signal));
        effects
    }
}
