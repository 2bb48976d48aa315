//! Launches under way. Whoever the server runs as can stop the process that is to become it: the agent waits for none.

use std::{task::Poll, time::Instant};

use agent_api::{EventKind, Problem};
use agent_rollout::Event;
use agent_terms::GenerationId;

use super::{error::NotLaunched, pending_report::PendingReport};
use crate::{
    daemon::{agent::Agent, memory::Memory, world_error::WorldError},
    host::launch::Launch,
};

impl Agent {
    /// Has its report looked at when there is one, and when its time is over.
    pub(in crate::daemon) fn await_launch(
        &mut self,
        generation: GenerationId,
        Launch { process, report, unlogged }: Launch,
    ) -> Result<(), WorldError> {
        if let Some(error) = unlogged {
            self.note_unlogged(generation, &error);
        }
        // It is a member by birth, so that its end is seen; this takes the zombie away.
        let watched = self.watcher.watch_process(generation, process);
        let watched = watched.and_then(|()| self.watcher.watch_launch(generation, &report));
        watched.map_err(WorldError::WaitForLaunch)?;
        self.memories.of_mut(generation).launching = Some(PendingReport::new(report));
        Ok(())
    }

    pub(in crate::daemon) fn note_unlogged(
        &mut self,
        generation: GenerationId,
        error: &dyn std::error::Error,
    ) {
        let message =
            format!("its output goes nowhere, because there is no room for a log: {error}");
        self.note(generation, EventKind::Warning, message);
    }

    /// How far a launch is. One that has failed is the candidate's end, not a failure of ours.
    pub(in crate::daemon) fn look_at_launch(&mut self, generation: GenerationId) {
        let known = self.memories.known_mut(generation);
        let Some(pending) = known.and_then(|it| it.launching.as_mut()) else { return };
        let Poll::Ready(launched) = pending.poll() else { return };
        self.end_launch(generation);
        let launched = launched.map_err(NotLaunched::from);
        // Only now: before, its cgroup may have been empty yet.
        let watched = launched.and_then(|()| match self.cgroup_of(generation)? {
            Some(cgroup) => Ok(self.watch_cgroup(generation, &cgroup)?),
            None => Ok(()),
        });
        if let Err(error) = watched {
            let failed = Event::Failed(generation.number, Problem::from(error).in_full());
            self.feed_quietly(generation.service, failed);
        }
    }

    /// Nobody asks for its report any more.
    pub(in crate::daemon) fn end_launch(&mut self, generation: GenerationId) {
        let known = self.memories.known_mut(generation);
        if known.and_then(|it| it.launching.take()).is_some() {
            self.watcher.forget_launch(generation);
        }
    }

    pub(in crate::daemon) fn look_at_launches_where_due(&mut self) {
        for generation in self.memories.due(Instant::now(), give_up) {
            self.look_at_launch(generation);
        }
    }

    pub(in crate::daemon) fn next_launch_look(&self) -> Option<Instant> {
        self.memories.times(give_up).map(|(_, at)| at).min()
    }
}

fn give_up(memory: &Memory) -> Option<Instant> {
    memory.launching.as_ref().map(PendingReport::give_up)
}
