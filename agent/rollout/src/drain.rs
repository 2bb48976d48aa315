//! How a replaced generation leaves: queues, flows, the time as a standby, a last look, signal, kill.

use std::time::Duration;

use agent_terms::GenerationNumber;

use super::{
    DrainPlan, DrainPolicy, Effect, Event, Flows, Outcome, Phase, Queues, Service, Stop, Timestamp,
    deaths::explained, plan::spoken,
};

/// How long the end of one that was killed is waited for. The kernel ends a process at once, but for one that a tracer holds
/// (PTRACE_EVENT_EXIT) or that is in an uninterruptible system call: that may never return.
pub(super) const DEATH: Duration = Duration::from_secs(10);

impl Service {
    /// One empty look is enough: what it missed is found by the last look, which nothing new can come after.
    pub(super) fn note_queues(
        &mut self,
        number: GenerationNumber,
        queues: Queues,
        now: Timestamp,
    ) -> Vec<Effect> {
        self.note_waited(number, queues.count());
        if queues == Queues::Empty { self.clear(number, now) } else { Vec::new() }
    }

    /// What the flows say, counted from the sockets themselves and not from the counters: a signal cannot be taken back.
    pub(super) fn note_flows(
        &mut self,
        number: GenerationNumber,
        flows: Flows,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        generation.flows = generation.at_stake(flows);
        let Phase::Draining { deadline, keep_until, ref drain } = generation.phase else {
            return Vec::new();
        };
        match left(drain, generation.to_wait_for(flows), deadline, now) {
            None => Vec::new(),
            Some(0) if now < keep_until && !generation.stuck => {
                generation.phase = Phase::Standby { until: keep_until, drain: drain.clone() };
                self.complete_if_settled(number, now);
                Vec::new()
            }
            // What it has left may end with it, but not before the new one has proved itself.
            Some(_) if self.is_kept_to_settle(number) => Vec::new(),
            Some(_) => self.part(number, now),
        }
    }

    /// Decides whether it is told to end. Nothing can have been given to it since the look: steering does not lead here.
    pub(super) fn note_last_look(
        &mut self,
        number: GenerationNumber,
        queues: Queues,
        flows: Flows,
        now: Timestamp,
    ) -> Vec<Effect> {
        self.note_waited(number, queues.count());
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        generation.flows = generation.at_stake(flows);
        let Phase::Parting { until, deadline, ref drain } = generation.phase else {
            return Vec::new();
        };
        if queues != Queues::Empty && now < until {
            return Vec::new();
        }
        let drain = drain.clone();
        generation.note_queues_waited(now);
        if drain.policy == DrainPolicy::Graceful && now < deadline {
            generation.phase = Phase::Finishing { deadline, signal: drain.signal, told: false };
            return vec![Effect::Signal(number, drain.signal)];
        }
        match left(&drain, generation.to_wait_for(flows), deadline, now) {
            Some(left) => {
                // What waits to be accepted is migrated, and not cut.
                let left = left.min(generation.flows);
                self.stop(number, &drain, left, now)
            }
            None => {
                // The primary had no listener for a moment, and its connections came here.
                let keep_until = Timestamp::default();
                generation.phase = Phase::Draining { deadline, keep_until, drain };
                self.steer()
            }
        }
    }

    pub(super) fn note_told(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        if let Some(generation) = self.generation_mut(number) {
            generation.note_told(now);
        }
        Vec::new()
    }

    /// Those that were killed and have not ended, though they had the time for it.
    pub fn outliving(&self, now: Timestamp) -> impl Iterator<Item = GenerationNumber> {
        let outlives = move |phase: &Phase| {
            let Phase::Stopping { stop: Stop::Killed { at }, .. } = *phase else { return false };
            now >= at.after(DEATH)
        };
        self.generations.iter().filter(move |it| outlives(&it.phase)).map(|it| it.number)
    }

    /// Deadlines. A passed drain deadline alone signals nobody: the next count of the flows does, and says how many were left.
    pub(super) fn note_time(&mut self, now: Timestamp) -> Vec<Effect> {
        self.settle(now);
        let numbers: Vec<_> = self.generations.iter().map(|generation| generation.number).collect();
        numbers.into_iter().flat_map(|number| self.note_time_of(number, now)).collect()
    }

    fn note_time_of(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        match generation.phase.clone() {
            Phase::Starting { ready_by, listens, obstacle, .. } if now >= ready_by => {
                let waited = spoken(ready_by.since(generation.since));
                let reason = match (listens, &obstacle) {
                    (true, None) => format!("it listens, but has accepted nothing within {waited}"),
                    (true, Some(_)) => {
                        format!(
                            "it listens, but has not accepted on every endpoint within {waited}"
                        )
                    }
                    (false, None) => format!("it did not listen within {waited}"),
                    (false, Some(_)) => {
                        format!("it did not listen on every endpoint within {waited}")
                    }
                };
                let reason = explained(&reason, obstacle.as_deref());
                self.apply(Event::Failed(number, reason), now).unwrap_or_default()
            }
            Phase::Clearing { until, .. } if now >= until => self.clear(number, now),
            Phase::Draining { .. } => self.drain_gracefully(number, now),
            Phase::Standby { until, .. } if now >= until => self.end_standby(number, now),
            Phase::Stopping { stop: Stop::Signalled { kill_at }, patience, signal, flows_left }
                if now >= kill_at =>
            {
                let stop = Stop::Killed { at: kill_at };
                generation.phase = Phase::Stopping { stop, patience, signal, flows_left };
                vec![Effect::Kill(number)]
            }
            Phase::Stopping { stop: Stop::Killed { at }, flows_left, .. }
                if now >= at.after(DEATH) =>
            {
                self.end_rollouts_from(number, &Outcome::Outlived { flows_left }, now);
                Vec::new()
            }
            Phase::Finishing { deadline: at, signal, .. } if now >= at => {
                let (flows_left, patience) = (generation.flows, Duration::ZERO);
                let stop = Stop::Killed { at };
                generation.phase = Phase::Stopping { stop, patience, signal, flows_left };
                vec![Effect::Kill(number)]
            }
            Phase::Starting { .. }
            | Phase::Primary
            | Phase::Dead
            | Phase::Clearing { .. }
            | Phase::Standby { .. }
            | Phase::Parting { .. }
            | Phase::Finishing { .. }
            | Phase::Stopping { .. } => Vec::new(),
        }
    }

    /// The queues are empty, or their time is up.
    fn clear(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        generation.note_queues_waited(now);
        let Phase::Clearing { keep_until, ref drain, .. } = generation.phase else {
            return Vec::new();
        };
        let (deadline, drain) = (now.after(drain.timeout), drain.clone());
        generation.phase = Phase::Draining { deadline, keep_until, drain };
        self.drain_gracefully(number, now)
    }

    /// Drains once more: its time as a standby is over, and it may have got flows in it.
    pub(super) fn end_standby(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        let Phase::Standby { ref drain, .. } = generation.phase else { return Vec::new() };
        let (deadline, drain) = (now.after(drain.timeout), drain.clone());
        generation.phase = Phase::Draining { deadline, keep_until: now, drain };
        self.drain_gracefully(number, now)
    }

    /// A server that finishes its flows by itself is told to as soon as nobody wants to fall back to it.
    fn drain_gracefully(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        match self.generation(number).map(|it| &it.phase) {
            Some(Phase::Draining { keep_until, drain, .. })
                if drain.policy == DrainPolicy::Graceful && now >= *keep_until =>
            {
                self.part(number, now)
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Steering first: a generation that is about to end must not be fallen back to. What it was given until then is looked
    /// for only after that.
    fn part(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        let Phase::Draining { deadline, ref drain, .. } = generation.phase else {
            return Vec::new();
        };
        let (until, drain) = (now.after(generation.queue_patience(drain)), drain.clone());
        generation.phase = Phase::Parting { until, deadline, drain };
        self.steer()
    }

    /// Tells a generation to end that steering does not lead to.
    pub(super) fn stop(
        &mut self,
        number: GenerationNumber,
        drain: &DrainPlan,
        flows_left: u64,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        let (patience, signal) = (drain.stop_timeout, drain.signal);
        let stop = Stop::ToSignal { kill_at: now.after(patience) };
        generation.phase = Phase::Stopping { stop, patience, signal, flows_left };
        vec![Effect::Signal(number, signal)]
    }
}

/// How many flows are given up if the drain ends now; `None` if it goes on.
fn left(drain: &DrainPlan, flows: Flows, deadline: Timestamp, now: Timestamp) -> Option<u64> {
    match drain.policy {
        _ if flows.open == 0 => Some(0),
        _ if now >= deadline => Some(flows.open),
        DrainPolicy::Patient { idle: Some(idle) } if flows.idle >= idle => Some(0),
        DrainPolicy::Patient { .. } | DrainPolicy::Graceful => None,
    }
}
