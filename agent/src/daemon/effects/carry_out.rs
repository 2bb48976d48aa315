//! Executes what the rollout decided, in order.

use agent_api::{EventKind, Problem};
use agent_ebpf::steering::{MAX_STANDBYS, Steering};
use agent_rollout::{Effect, Origin, Phase, Service, Status, Stop, Targets};
use agent_terms::{GenerationId, GenerationNumber, ServiceId};

use crate::daemon::{
    agent::Agent,
    state::troubles::Trouble,
    step::{Step, take},
    world_error::WorldError,
};

impl Agent {
    /// Executes what is outstanding, each service's by itself.
    pub(in crate::daemon) fn finish_effects(&mut self) {
        for id in self.outstanding.services() {
            self.finish_effects_of(id);
        }
    }

    /// Executes a service's effects in order. One that fails stays in front and is tried again: what follows may rest on it.
    /// While the state is not saved, all waits that cannot be taken back or is not urgent.
    pub(in crate::daemon) fn finish_effects_of(&mut self, id: ServiceId) {
        while let Some(effect) = self.next_effect(id) {
            if let Err(problem) = self.execute(id, &effect) {
                // It went with its service.
                let Some(record) = self.records.get(&id) else { return };
                let (name, what) = (record.service.name(), describe(&effect));
                let message = format!("{name}: could not {what}: {}", problem.in_full());
                self.trouble(Trouble::Effect(id), message);
                return self.outstanding.put_back(id, effect);
            }
        }
        if let Some(record) = self.records.get(&id) {
            let message = format!("{}: what could not be done is done", record.service.name());
            self.over(Trouble::Effect(id), &message);
        }
    }

    fn next_effect(&mut self, id: ServiceId) -> Option<Effect> {
        if !self.records.contains_key(&id) {
            self.outstanding.forget(id);
            return None;
        }
        let is_saved = !self.troubles.lasts(Trouble::Unsaved);
        // A map that cannot be read is written: that shows what is wrong with it.
        let steering = || self.datapath.steering(id).ok().flatten();
        let primary = || steering().map(|it| GenerationNumber(it.primary));
        self.outstanding.take(id, |it| is_saved || it.cannot_wait(primary()))
    }

    pub(in crate::daemon) fn execute(
        &mut self,
        id: ServiceId,
        effect: &Effect,
    ) -> Result<(), WorldError> {
        let of = |number: GenerationNumber| GenerationId { service: id, number };
        match effect {
            Effect::Launch(number) => {
                self.launch(of(*number));
                Ok(())
            }
            Effect::Steer(targets) => {
                let (probe_generation, probe_port) = self.probe_of(id).unwrap_or_default();
                let probe_port = u32::from(probe_port);
                let steering = Steering { probe_generation, probe_port, ..steering(targets) };
                take(Step::Steer, || Ok(self.datapath.steer(id, &steering)?))
            }
            // One that fails is looked at again, and keeps no other effect waiting.
            Effect::Probe(number) => {
                let probed = self.probe(of(*number));
                self.note_look(of(*number), probed);
                Ok(())
            }
            Effect::Signal(number, signal) => {
                self.keep_names(of(*number))?;
                self.signal(of(*number), *signal)?;
                self.await_return(id);
                // If this cannot be written down, repeating the signal would only make it worse.
                self.feed_quietly(id, agent_rollout::Event::Told(*number));
                Ok(())
            }
            Effect::Kill(number) => self.kill(of(*number)),
            Effect::Forget(number) => self.forget(of(*number)),
        }
    }

    /// A launch that fails is the candidate's end, not a failure of ours.
    fn launch(&mut self, generation: GenerationId) {
        if let Err(error) = self.launch_candidate(generation) {
            let why = Problem::from(error).in_full();
            let failed = agent_rollout::Event::Failed(generation.number, why);
            self.feed_quietly(generation.service, failed);
        }
    }

    fn forget(&mut self, generation: GenerationId) -> Result<(), WorldError> {
        self.give_names_back(generation)?;
        self.await_return(generation.service);
        self.end_probe(generation);
        self.forget_what_was_seen(generation);
        let former = self.former_groups.get(&generation).cloned();
        let path = former.unwrap_or_else(|| self.cgroup_path(generation));
        if let Ok(cgroup) = self.hierarchy.open(&path) {
            take(Step::RemoveCgroup, || cgroup.remove().map_err(WorldError::from))?;
        }
        self.former_groups.remove(&generation);
        // The maps last: after a crash on the way they still tell that something is to be forgotten.
        let endpoints = self.record(generation.service).service.endpoints().to_vec();
        take(Step::ForgetGeneration, || Ok(self.datapath.forget(generation, &endpoints)?))
    }

    /// Of one that is no more.
    pub(in crate::daemon) fn forget_what_was_seen(&mut self, generation: GenerationId) {
        self.watcher.forget(generation);
        self.memories.forget(generation);
        self.moot(Trouble::Look(generation));
        self.moot(Trouble::Adoption(generation));
        self.moot(Trouble::Flows(generation));
    }

    /// Tells people what changed.
    pub(in crate::daemon) fn note_changes(&mut self, id: ServiceId, before: &Service) {
        let Some(record) = self.records.get(&id) else { return };
        let after = record.service.clone();
        let name = after.name().clone();
        self.note_new_phases(id, before, &after);
        for gone in before.generations().iter().filter(|it| after.generation(it.number()).is_none())
        {
            if let Origin::Launched { cgroup, .. } = gone.origin() {
                let key = GenerationId { service: id, number: gone.number() };
                self.former_groups.insert(key, cgroup.clone());
            }
            let message = format!("generation {} is gone", gone.number());
            self.journal.note(&name, Some(gone.number()), EventKind::Gone, message);
            self.note_ended_early(id, gone);
        }
        self.note_rollouts(before, &after);
    }

    /// Looks begin anew for a generation whose part has changed.
    fn note_new_phases(&mut self, id: ServiceId, before: &Service, after: &Service) {
        let name = after.name();
        for generation in after.generations() {
            let number = generation.number();
            let Some(previous) = before.generation(number) else {
                let release = generation.release();
                let release = release.map(|it| format!(" (release {it})")).unwrap_or_default();
                let how = match generation.origin() {
                    Origin::Launched { command, .. } => {
                        format!("launching generation {number}{release}: {}", command.join(" "))
                    }
                    Origin::Found => format!("generation {number}{release} was found running"),
                };
                self.journal.note(name, Some(number), EventKind::Launched, how);
                continue;
            };
            if std::mem::discriminant(previous.phase())
                == std::mem::discriminant(generation.phase())
            {
                continue;
            }
            let key = GenerationId { service: id, number };
            self.look_at_time(key, self.first_look(key, generation.phase()));
            match generation.phase() {
                // What was seen when it was replaced before is of no meaning when it is replaced again.
                Phase::Primary => {
                    self.moot(Trouble::Flows(key));
                    let memory = self.memories.of_mut(key);
                    (memory.flows, memory.half_open) = (None, None);
                }
                // The requests that it had then are gone or given up; what it got as a standby is looked for anew.
                Phase::Parting { .. } => self.memories.of_mut(key).half_open = None,
                Phase::Starting { .. }
                | Phase::Dead
                | Phase::Clearing { .. }
                | Phase::Draining { .. }
                | Phase::Standby { .. }
                | Phase::Finishing { .. }
                | Phase::Stopping { .. } => {}
            }
            // Nobody asks one that was given up.
            if *generation.phase() != Phase::Primary {
                self.end_probe(key);
            }
            if let Some((kind, mut message)) = transition(number, generation.phase()) {
                if let Phase::Stopping { .. } = generation.phase() {
                    message += &self.clients_to_cut_off(key);
                }
                self.journal.note(name, Some(number), kind, message);
            }
        }
    }

    fn note_rollouts(&mut self, before: &Service, after: &Service) {
        let name = after.name();
        for rollout in after.rollouts() {
            let previous = before.rollout(rollout.id).map(|it| &it.status);
            if previous == Some(&Status::Settling) && rollout.status == Status::Draining {
                let number = rollout.to;
                let message = format!("generation {number} has settled");
                self.journal.note(name, Some(number), EventKind::Settled, message);
            }
            // Also one that had ended: what was said of it then is corrected.
            if rollout.is_ended() && previous != Some(&rollout.status) {
                let message = format!(
                    "rollout {} to generation {}: {}",
                    rollout.id, rollout.to, rollout.status
                );
                self.journal.note(name, Some(rollout.to), EventKind::Ended, message);
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
        Phase::Clearing { .. } | Phase::Parting { .. } => return None,
        Phase::Draining { .. } => (EventKind::Cleared, format!("generation {number} drains")),
        Phase::Standby { .. } => (
            EventKind::Kept,
            format!("generation {number} has drained, and is kept to fall back to"),
        ),
        Phase::Finishing { signal, .. } => (
            EventKind::Signalled,
            format!("generation {number} was told to finish (signal {signal})"),
        ),
        Phase::Stopping {
            stop: Stop::ToSignal { .. } | Stop::Signalled { .. }, signal, ..
        } => {
            (EventKind::Signalled, format!("generation {number} was told to end (signal {signal})"))
        }
        Phase::Stopping { stop: Stop::Killed { .. }, .. } => {
            (EventKind::Signalled, format!("generation {number} was killed"))
        }
    })
}

/// The value for the kernel. More standbys than it can hold are the oldest ones, which are left out.
pub(in crate::daemon) fn steering(targets: &Targets) -> Steering {
    let mut standbys = [0; MAX_STANDBYS];
    for (slot, standby) in standbys.iter_mut().zip(&targets.standbys) {
        *slot = standby.0;
    }
    Steering { primary: targets.primary.0, standbys, ..Steering::default() }
}

fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Launch(number) => format!("launch generation {number}"),
        Effect::Probe(number) => format!("probe generation {number}"),
        Effect::Steer(targets) => format!("steer to generation {}", targets.primary),
        Effect::Signal(number, signal) => format!("send signal {signal} to generation {number}"),
        Effect::Kill(number) => format!("kill generation {number}"),
        Effect::Forget(number) => format!("forget generation {number}"),
    }
}
