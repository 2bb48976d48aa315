//! Launches under way. Whoever the server runs as can stop the process that is to become it: the agent waits for none.

use std::{
    task::Poll,
    time::{Duration, Instant},
};

use crate::{
    api::{Problem, ProblemKind},
    daemon::agent::Agent,
    host::launch::{Launch, LaunchError, Report},
    rollout::Event,
    service::GenerationId,
};

/// A candidate that is not executed yet.
pub(in crate::daemon) struct Launching {
    report: Report,
    give_up: Instant,
}

impl Agent {
    /// Has its report looked at when there is one, and when its time is over.
    pub(in crate::daemon) fn await_launch(
        &mut self,
        generation: GenerationId,
        Launch { process, report }: Launch,
    ) -> Result<(), Problem> {
        // It is a member by birth, so that its end is seen; this takes the zombie away.
        let watched = self.watcher.watch_process(generation, process);
        let watched = watched.and_then(|()| self.watcher.watch_launch(generation, &report));
        watched.map_err(|error| {
            Problem::new(ProblemKind::Failed, format!("wait for the launched process: {error}"))
        })?;
        let give_up = Instant::now() + PATIENCE;
        self.launching.insert(generation, Launching { report, give_up });
        Ok(())
    }

    /// How far a launch is. One that has failed is the candidate's end, not a failure of ours.
    pub(in crate::daemon) fn look_at_launch(&mut self, generation: GenerationId) {
        let Some(Launching { report, give_up }) = self.launching.get_mut(&generation) else {
            return;
        };
        let launched = match report.poll() {
            Poll::Ready(launched) => launched,
            Poll::Pending if *give_up > Instant::now() => return,
            Poll::Pending => Err(LaunchError::TimedOut { patience: PATIENCE }),
        };
        self.end_launch(generation);
        let launched = launched.map_err(|error| Problem::caused(ProblemKind::NotReady, &error));
        // Only now: before, its cgroup may have been empty yet.
        let watched = launched.and_then(|()| match self.cgroup_of(generation)? {
            Some(cgroup) => self.watch_cgroup(generation, &cgroup),
            None => Ok(()),
        });
        if let Err(problem) = watched {
            let failed = Event::Failed(generation.number, problem.in_full());
            self.feed_quietly(generation.service, failed);
        }
    }

    /// Nobody asks for its report any more.
    pub(in crate::daemon) fn end_launch(&mut self, generation: GenerationId) {
        if self.launching.remove(&generation).is_some() {
            self.watcher.forget_launch(generation);
        }
    }

    pub(in crate::daemon) fn look_at_launches_where_due(&mut self) {
        let now = Instant::now();
        let due = self.launching.iter().filter(|(_, launching)| launching.give_up <= now);
        for generation in due.map(|(generation, _)| *generation).collect::<Vec<_>>() {
            self.look_at_launch(generation);
        }
    }

    pub(in crate::daemon) fn next_launch_look(&self) -> Option<Instant> {
        self.launching.values().map(|launching| launching.give_up).min()
    }
}

/// How long a launch may take; each of its steps takes microseconds on a sound machine.
const PATIENCE: Duration = Duration::from_secs(30);
