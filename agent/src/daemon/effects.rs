//! Executes what the rollout decided, in order, each effect at least once.

use std::{collections::VecDeque, time::Instant};

use agent_ebpf::steering::{MAX_STANDBYS, Steering};

use super::{
    agent::Agent,
    troubles::{Trouble, told},
};
use crate::{
    api::{EventKind, Problem, ProblemKind},
    host::{
        holders,
        process::{Process, ProcessError},
    },
    rollout::{self, Effect, Origin, Phase, Service, Targets},
    service::{GenerationId, GenerationNumber, ServiceId},
};

impl Agent {
    /// Executes effects in order. One that fails stays in front and is tried again: what follows may rest on it. While the
    /// state is not saved, all that cannot be taken back waits.
    pub(super) fn finish_effects(&mut self) {
        let mut waiting = VecDeque::new();
        let mut failed = false;
        while let Some((id, effect)) = self.unfinished.pop_front() {
            if !self.records.contains_key(&id) {
                continue;
            }
            if self.troubles.lasts(Trouble::Unsaved) && !effect.can_be_taken_back() {
                waiting.push_back((id, effect));
            } else if let Err(problem) = self.execute(id, &effect) {
                let service = &self.record(id).service.name;
                let what = describe(&effect);
                let message = format!("{service}: could not {what}: {}", told(&problem));
                self.trouble(Trouble::Effect, message);
                self.unfinished.push_front((id, effect));
                failed = true;
                break;
            }
        }
        waiting.append(&mut self.unfinished);
        self.unfinished = waiting;
        if !failed {
            self.over(Trouble::Effect, "what could not be done is done");
        }
    }

    fn execute(&mut self, id: ServiceId, effect: &Effect) -> Result<(), Problem> {
        let of = |number: GenerationNumber| GenerationId { service: id, number };
        match effect {
            Effect::Launch(number) => self.launch(of(*number)),
            Effect::Steer(targets) => Ok(self.datapath.steer(id, &steering(targets))?),
            Effect::Signal(number, signal) => self.signal(of(*number), *signal),
            Effect::Kill(number) => self.kill(of(*number)),
            Effect::Forget(number) => self.forget(of(*number)),
        }
    }

    /// A launch that fails is the candidate's end, not a failure of ours.
    fn launch(&mut self, generation: GenerationId) -> Result<(), Problem> {
        if let Err(problem) = self.launch_candidate(generation) {
            let why = told(&problem);
            self.feed(generation.service, rollout::Event::Failed(generation.number, why))?;
            // Nothing runs: the cgroup is empty and will not become emptier.
            self.feed(generation.service, rollout::Event::Exited(generation.number))?;
        }
        Ok(())
    }

    /// Only the root processes: they know how to end their workers.
    fn signal(&mut self, generation: GenerationId, signal: i32) -> Result<(), Problem> {
        let Some(named) = rustix::process::Signal::from_named_raw(signal) else {
            return Err(Problem::new(ProblemKind::Usage, format!("there is no signal {signal}")));
        };
        let pids = self.pids_of(generation)?;
        for pid in holders::roots(&pids)? {
            match Process::open(pid).and_then(|process| process.signal(named)) {
                Ok(()) => tracing::info!(pid = pid.get(), signal, "signalled"),
                // It ended between the list and the signal.
                Err(ProcessError::Gone { .. }) => tracing::debug!(%pid, "already gone"),
                Err(error) => return Err(error.into()),
            }
        }
        if pids.is_empty() {
            self.note_exit(generation);
        }
        Ok(())
    }

    fn kill(&mut self, generation: GenerationId) -> Result<(), Problem> {
        if let Some(cgroup) = self.cgroup_of(generation)? {
            cgroup.kill().map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
        }
        for pid in self.pids_of(generation)? {
            match Process::open(pid)
                .and_then(|process| process.signal(rustix::process::Signal::KILL))
            {
                Ok(()) => {}
                Err(ProcessError::Gone { .. }) => tracing::debug!(%pid, "already gone"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn forget(&mut self, generation: GenerationId) -> Result<(), Problem> {
        let endpoints = self.record(generation.service).service.endpoints.clone();
        self.datapath.forget(generation, &endpoints)?;
        self.watcher.forget(generation);
        self.looks.remove(&generation);
        self.half_open.remove(&generation);
        self.flows.remove(&generation);
        self.launches.remove(&generation);
        self.moot(Trouble::Look(generation));
        let path = self.cgroup_path(generation);
        if let Ok(cgroup) = self.hierarchy.open(&path) {
            cgroup.remove().map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
        }
        Ok(())
    }

    /// Tells people what changed.
    pub(super) fn note_changes(&mut self, id: ServiceId, before: &Service) {
        let Some(record) = self.records.get(&id) else { return };
        let after = record.service.clone();
        let name = after.name.clone();
        for generation in &after.generations {
            let number = generation.number;
            let Some(previous) = before.generation(number) else {
                let how = match &generation.origin {
                    Origin::Launched { command, .. } => {
                        format!("launching generation {number}: {}", command.join(" "))
                    }
                    Origin::Found => format!("generation {number} was found running"),
                };
                self.journal.note(&name, Some(number), EventKind::Launched, how);
                continue;
            };
            if std::mem::discriminant(&previous.phase) == std::mem::discriminant(&generation.phase)
            {
                continue;
            }
            self.looks.insert(GenerationId { service: id, number }, Instant::now());
            if let Some((kind, message)) = transition(number, &generation.phase) {
                self.journal.note(&name, Some(number), kind, message);
            }
        }
        for gone in before.generations.iter().filter(|it| after.generation(it.number).is_none()) {
            self.journal.note(
                &name,
                Some(gone.number),
                EventKind::Gone,
                format!("generation {} is gone", gone.number),
            );
        }
        for rollout in after.rollouts.iter().filter(|it| it.is_ended()) {
            if before.rollout(rollout.id).is_none_or(|it| !it.is_ended()) {
                let message = format!(
                    "rollout {} to generation {}: {}",
                    rollout.id, rollout.to, rollout.status
                );
                self.journal.note(&name, Some(rollout.to), EventKind::Ended, message);
            }
        }
    }
}

fn transition(number: GenerationNumber, phase: &Phase) -> Option<(EventKind, String)> {
    Some(match phase {
        Phase::Starting { .. } => return None,
        Phase::Primary => {
            (EventKind::Switched, format!("new connections go to generation {number}"))
        }
        Phase::Dead => (
            EventKind::Warning,
            format!("generation {number} died, and no other one can take over"),
        ),
        Phase::Settling { .. } => return None,
        Phase::Draining { .. } => (EventKind::Settled, format!("generation {number} drains")),
        Phase::Finishing { signal, .. } => (
            EventKind::Signalled,
            format!("generation {number} was told to finish (signal {signal})"),
        ),
        Phase::Stopping { killed: false, signal, .. } => {
            (EventKind::Signalled, format!("generation {number} was told to end (signal {signal})"))
        }
        Phase::Stopping { killed: true, .. } => {
            (EventKind::Signalled, format!("generation {number} was killed"))
        }
    })
}

/// The value for the kernel. More standbys than it can hold are the oldest ones, which are left out.
fn steering(targets: &Targets) -> Steering {
    let mut standbys = [0; MAX_STANDBYS];
    for (slot, standby) in standbys.iter_mut().zip(&targets.standbys) {
        *slot = standby.0;
    }
    Steering { primary: targets.primary.0, standbys, ..Steering::default() }
}

fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Launch(number) => format!("launch generation {number}"),
        Effect::Steer(targets) => format!("steer to generation {}", targets.primary),
        Effect::Signal(number, signal) => format!("send signal {signal} to generation {number}"),
        Effect::Kill(number) => format!("kill generation {number}"),
        Effect::Forget(number) => format!("forget generation {number}"),
    }
}
