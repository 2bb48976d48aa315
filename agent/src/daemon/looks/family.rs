//! The processes of a generation, followed from birth: taken in, let go, and watched until the last one has ended.

use std::{collections::HashSet, time::Instant};

use agent_rollout::{Event, Origin, Phase, Stop};
use agent_terms::GenerationId;

use crate::{
    daemon::{
        agent::{Agent, RETRY},
        identify::found,
        step::{Step, take},
        world_error::WorldError,
    },
    host::{
        holders,
        process::{Pid, Process, ProcessError},
        process_table::ProcessTable,
        sock_diag,
    },
};

impl Agent {
    /// Takes running processes into a generation, with all that were born of them. The kernel follows whatever they fork from
    /// now on; what they forked while we looked is found by the next look.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or processes cannot be listed.
    pub(in crate::daemon) fn enlist(
        &mut self,
        generation: GenerationId,
        pids: impl IntoIterator<Item = Pid>,
    ) -> Result<(), WorldError> {
        let mut taken: Vec<Pid> = pids.into_iter().collect();
        let mut named: HashSet<Pid> = taken.iter().copied().collect();
        self.follow(generation, &taken)?;
        // A process that a member has forked is one from birth. Others are born of those that we have not found yet, each of which
        // is a round.
        const ROUNDS: usize = 16;
        for _round in 0..ROUNDS {
            let table = ProcessTable::read()?;
            let mut family = table.with_descendants(&taken);
            family.extend(orphans_that_serve_nothing(&table, &family)?);
            let known = self.members_of(generation)?;
            family.retain(|pid| !known.contains(pid) && !named.contains(pid));
            if family.is_empty() {
                break;
            }
            self.follow(generation, &family)?;
            // Whoever is no member now has ended. There are always such where processes are forked without pause.
            let known = self.members_of(generation)?;
            family.retain(|pid| known.contains(pid));
            if family.is_empty() {
                break;
            }
            named.extend(family.iter().copied());
            taken.extend(family);
        }
        Ok(())
    }

    fn follow(&mut self, generation: GenerationId, pids: &[Pid]) -> Result<(), WorldError> {
        take(Step::FollowProcesses, || {
            Ok(self.datapath.enlist(generation, pids.iter().copied())?)
        })
    }

    fn members_of(&self, generation: GenerationId) -> Result<HashSet<Pid>, WorldError> {
        Ok(self.datapath.members(generation)?.into_iter().collect())
    }

    /// Has everything belong to a generation that `launch` forks. The launcher is a member meanwhile, so that the first
    /// process of the generation is one from birth.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(in crate::daemon) fn born_into<T>(
        &mut self,
        generation: GenerationId,
        launch: impl FnOnce(&mut Self) -> Result<T, WorldError>,
    ) -> Result<T, WorldError> {
        let launcher = self.launcher.pid();
        self.follow(generation, &[launcher])?;
        let launched = launch(self);
        self.datapath.dismiss([launcher])?;
        launched
    }

    /// Waits for the ends of the processes that a generation's others were born of. When one has ended, those that are left
    /// have roots of their own. Says how many processes there are.
    ///
    /// One that ends between the list and the wait is seen by nobody: then both are done again.
    ///
    /// # Errors
    ///
    /// When processes cannot be listed, or not be waited for.
    pub(in crate::daemon) fn watch_roots(
        &mut self,
        generation: GenerationId,
    ) -> Result<usize, WorldError> {
        const TURNS: usize = 8;
        let mut pids = self.pids_of(generation)?;
        for _turn in 0..TURNS {
            let roots = holders::roots(&pids)?;
            let gone = self.watch_all(generation, &roots)?;
            if gone.is_empty() && roots.is_empty() == pids.is_empty() {
                self.note_processes(generation, &pids);
                return Ok(pids.len());
            }
            pids = self.pids_of(generation)?;
            pids.retain(|pid| !gone.contains(pid));
        }
        // They come and go faster than they can be waited for, maybe on purpose: it lives, for now.
        self.memories.of_mut(generation).next_count = Some(Instant::now() + RETRY);
        Ok(pids.len().max(1))
    }

    /// Counts again where processes come and go. Of a generation that was killed those are killed too who were born as the
    /// others were.
    pub(in crate::daemon) fn count_again_where_due(&mut self) {
        for generation in self.memories.due(Instant::now(), |it| it.next_count) {
            self.memories.of_mut(generation).next_count = None;
            let phase = self.generation(generation).map(|it| it.phase());
            let killed = match phase {
                Some(Phase::Stopping { stop: Stop::Killed { .. }, .. }) => self.kill(generation),
                _ => Ok(()),
            };
            let counted = killed.and_then(|()| self.count_processes(generation));
            self.note_look(generation, counted);
        }
    }

    /// Waits for the ends of these processes; returns those that have ended already.
    fn watch_all(&self, generation: GenerationId, roots: &[Pid]) -> Result<Vec<Pid>, WorldError> {
        let mut gone = Vec::new();
        for root in roots {
            match Process::open(*root) {
                Ok(process) if self.watcher.is_watched(generation, process.identity()) => {}
                Ok(process) => self.watch(generation, process)?,
                Err(ProcessError::Gone { .. }) => gone.push(*root),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(gone)
    }

    /// What is written down of them is for an agent that finds no kernel maps.
    fn note_processes(&mut self, generation: GenerationId, pids: &[Pid]) {
        let Some(known) = self.generation(generation) else { return };
        if *known.origin() != Origin::Found {
            return;
        }
        let identities = found::identities(pids);
        if known.processes() == identities {
            return;
        }
        let number = generation.number;
        self.feed_quietly(generation.service, Event::ProcessesChanged(number, identities));
    }

    fn watch(&self, generation: GenerationId, process: Process) -> Result<(), WorldError> {
        let pid = process.pid();
        self.watcher
            .watch_process(generation, process)
            .map_err(|source| WorldError::WaitForProcess { pid, source })
    }
}

/// What a server has left behind, except other servers.
fn orphans_that_serve_nothing(
    table: &ProcessTable,
    family: &[Pid],
) -> Result<Vec<Pid>, WorldError> {
    let mut orphans = table.orphans_of(family);
    if !orphans.is_empty() {
        let listeners = sock_diag::listeners()?.iter().map(|it| it.inode).collect();
        let servers = holders::holders_among(orphans.iter().copied(), &listeners)?.found;
        let servers: HashSet<Pid> = servers.into_iter().map(|server| server.pid).collect();
        orphans.retain(|pid| !servers.contains(pid));
    }
    Ok(orphans)
}
