//! Goes on where an earlier agent stopped.

use std::time::Instant;

use agent_api::Problem;
use agent_rollout::{Event, Generation, Origin, Phase};
use agent_terms::{GenerationId, ServiceId};

use crate::daemon::{
    agent::Agent,
    state::{clock, troubles::Trouble},
};

impl Agent {
    /// Continues what an earlier agent left: does what it decided and did not do, and looks who died meanwhile.
    pub(super) fn adopt(&mut self) -> Result<(), Problem> {
        self.settle_unfinished();
        let ids: Vec<ServiceId> = self.records.keys().copied().collect();
        for id in ids {
            let service = self.record(id).service.clone();
            tracing::info!(service = %service.name(), generations = service.generations().len(), "adopting");
            self.forget_probes_of(id);
            let seen = self.seen(id)?;
            let effects = self.record_mut(id).service.resume(&seen, clock::now());
            self.outstanding.add(id, effects);
            self.finish_effects_of(id);
            for generation in service.generations() {
                self.adopt_generation(GenerationId { service: id, number: generation.number() });
            }
        }
        self.look_for_closed_listeners()?;
        self.set_endpoints()?;
        let living = self.records.iter().flat_map(|(id, record)| {
            let numbers = record.service.generations().iter().map(|it| it.number());
            numbers.map(|number| GenerationId { service: *id, number }.key())
        });
        self.datapath.keep_only(&living.collect())?;
        for id in self.records.keys().copied().collect::<Vec<_>>() {
            self.guard_queues(id);
            self.hold_ports(id);
            self.await_return(id);
            self.hand_on_after_restart(id);
        }
        self.look_where_due();
        self.look_at_logs();
        for id in self.records.keys().copied().collect::<Vec<_>>() {
            if let Some(number) = self.record(id).service.primary().map(|it| it.number()) {
                self.remember_mark(GenerationId { service: id, number });
            }
        }
        // Only now: a server that serves again must not be taken for one that does not.
        for id in self.records.keys() {
            self.strangers.look_at(*id, Instant::now());
        }
        Ok(())
    }

    /// An attach that was not finished is taken back: whoever asked for it was not told that it is done. A detach is
    /// finished: what it has taken away already does not come back by itself.
    fn settle_unfinished(&mut self) {
        let half_done = self.records.iter().filter(|(_, record)| record.unfinished.is_some());
        for id in half_done.map(|(id, _)| *id).collect::<Vec<_>>() {
            let name = self.record(id).service.name().clone();
            match self.release(id) {
                Ok(_) => tracing::info!(service = %name, "finished what was half done"),
                Err(problem) => {
                    tracing::error!(service = %name, problem = problem.in_full(), "cannot finish what is half done");
                }
            }
        }
    }

    /// One that cannot be followed is tried again: it keeps the agent from no other one.
    pub(in crate::daemon) fn adopt_generation(&mut self, generation: GenerationId) {
        let trouble = Trouble::Adoption(generation);
        let Some(known) = self.generation(generation).cloned() else { return self.moot(trouble) };
        let name = self.record(generation.service).service.name().clone();
        let number = generation.number;
        match self.follow_as(generation, &known) {
            Ok(()) => self.over(trouble, &format!("{name}: generation {number} is followed again")),
            Err(problem) => {
                let problem = problem.in_full();
                self.trouble(
                    trouble,
                    format!("{name}: cannot follow generation {number}: {problem}"),
                );
            }
        }
    }

    fn follow_as(&mut self, generation: GenerationId, known: &Generation) -> Result<(), Problem> {
        let alive = !self.pids_of(generation)?.is_empty();
        match (known.origin(), known.phase()) {
            (Origin::Found, Phase::Starting { listens: true, .. }) if alive => {
                self.follow_again(generation)?;
                self.feed(generation.service, Event::Covers(generation.number, known.listening()))?;
            }
            (Origin::Found, Phase::Starting { .. }) => {
                let why = "the agent was restarted before it was introduced".to_owned();
                self.feed(generation.service, Event::Failed(generation.number, why))?;
            }
            // One that was not launched yet never is: nobody knows any more what was to be launched.
            (Origin::Launched { .. }, Phase::Starting { .. }) if !alive => {
                let why = "the agent was restarted meanwhile, and nothing of it runs".to_owned();
                self.feed(generation.service, Event::NotYet(generation.number, why))?;
                self.feed(generation.service, Event::Exited(generation.number))?;
            }
            (_, Phase::Dead) => {}
            _ if !alive => self.note_exit(generation),
            (Origin::Launched { .. }, _) => {
                if let Some(cgroup) = self.cgroup_of(generation)? {
                    self.watch_cgroup(generation, &cgroup)?;
                }
                self.follow_again(generation)?;
                self.look_at_time(generation, Instant::now());
            }
            (Origin::Found, _) => {
                self.follow_again(generation)?;
                self.look_at_time(generation, Instant::now());
            }
        }
        Ok(())
    }

    /// Those that we found once, or launched, where the maps that knew them are gone.
    fn follow_again(&mut self, generation: GenerationId) -> Result<(), Problem> {
        let pids = self.pids_of(generation)?;
        self.enlist(generation, pids)?;
        Ok(self.count_processes(generation)?)
    }
}
