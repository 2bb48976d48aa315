//! The processes of a generation: listed, told to end, killed, and found out if they outlive their turn.

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use agent_api::EventKind;
use agent_rollout::{Phase, Stop};
use agent_terms::{GenerationId, Signal};

use crate::{
    daemon::{
        agent::{Agent, RETRY},
        few::few_of,
        identify::found,
        state::troubles::Trouble,
        step::{Step, take},
        world_error::WorldError,
    },
    host::{
        cgroup::Cgroup,
        holders,
        process::{Ending, Handle, Pid, Process, ProcessError},
        sock_diag::{Listener, SocketInode},
    },
    sys,
};

impl Agent {
    /// The processes of a generation that live now.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(in crate::daemon) fn pids_of(
        &self,
        generation: GenerationId,
    ) -> Result<Vec<Pid>, WorldError> {
        let mut pids: BTreeSet<Pid> = self.datapath.members(generation)?.into_iter().collect();
        if let Some(cgroup) = self.cgroup_of(generation)? {
            pids.extend(members(&cgroup)?);
        }
        // One that ends is no member any more before it has closed its sockets.
        let written = self.generation(generation).map(|known| known.processes());
        for identity in written.unwrap_or_default() {
            if !pids.contains(&identity.pid) && Process::lives(*identity)? {
                pids.insert(identity.pid);
            }
        }
        Ok(pids.into_iter().collect())
    }

    /// Those of these processes of a generation that live, held by `open`: what is done to them can hit nobody who gets one of
    /// their numbers later.
    fn held<T>(
        &self,
        generation: GenerationId,
        pids: &[Pid],
        open: impl Fn(Pid) -> Result<T, ProcessError>,
    ) -> Result<Vec<T>, WorldError> {
        let mut opened = Vec::new();
        for pid in pids {
            match open(*pid) {
                Ok(process) => opened.push((*pid, process)),
                Err(ProcessError::Gone { .. }) => {}
                // Of one that cannot be looked at nobody knows that it is dead.
                Err(error) => return Err(error.into()),
            }
        }
        // Whose number was given to a stranger before it was opened belongs to the generation no more.
        let still: HashSet<_> = self.pids_of(generation)?.into_iter().collect();
        let of_it = opened.into_iter().filter(|(pid, _)| still.contains(pid));
        Ok(of_it.map(|(_, process)| process).collect())
    }

    /// Only the root processes: they know how to end their workers. When a root has ended and others live, those that are
    /// roots then are told in turn, see [`Self::tell_next_roots`]. One that cannot be told (a security module may forbid it) is
    /// killed when its time is up, as one that does not listen is.
    pub(in crate::daemon) fn signal(
        &mut self,
        generation: GenerationId,
        signal: Signal,
    ) -> Result<(), WorldError> {
        let all = self.pids_of(generation)?;
        let pids = self.without_privileged(generation, all)?;
        let roots = self.held(generation, &holders::roots(&pids)?, Process::open)?;
        let told = &mut self.memories.of_mut(generation).told;
        let masters: Vec<_> = roots.iter().filter(|it| !told.contains(&it.identity())).collect();
        let refused: Vec<_> = take(Step::Signal, || {
            let sent = masters
                .iter()
                .map(|process| send(process.handle(), sys::signal::to_rustix(signal)));
            Ok(sent.filter_map(Result::err).collect())
        })?;
        told.extend(masters.iter().map(|it| it.identity()));
        for problem in refused {
            let message = format!(
                "generation {} cannot be told to end, and is killed when its time is up: {}",
                generation.number,
                problem.in_full()
            );
            self.note(generation, EventKind::Warning, message);
        }
        if pids.is_empty() {
            self.note_exit(generation);
            return Ok(());
        }
        self.count_processes(generation)
    }

    /// A root of a generation that was told to end has ended, and may have passed nothing on: a shell that waits for its
    /// command dies of the signal alone. Those that are left are told. While flows are finished by a server that does so by
    /// itself, only if one still listens: whoever was told closes its listeners first, and a second signal makes many
    /// servers quit at once.
    pub(in crate::daemon) fn tell_next_roots(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let Some(known) = self.generation(generation).filter(|it| it.is_told()) else {
            return Ok(());
        };
        let signal = match known.phase() {
            Phase::Stopping { stop: Stop::Signalled { .. }, signal, .. } => signal,
            Phase::Finishing { signal, .. } if self.listens(generation)? => signal,
            _ => return Ok(()),
        };
        if self.pids_of(generation)?.is_empty() {
            return Ok(());
        }
        self.signal(generation, *signal)
    }

    /// Every process, and people are told which ones had to be.
    pub(in crate::daemon) fn kill(&mut self, generation: GenerationId) -> Result<(), WorldError> {
        let all = self.pids_of(generation)?;
        let pids = self.without_privileged(generation, all.clone())?;
        if pids.is_empty() && !all.is_empty() {
            return self.count_processes(generation);
        }
        // Once, however often it is tried.
        if !pids.is_empty() && !self.troubles.lasts(Trouble::Effect(generation.service)) {
            let message = format!(
                "generation {} outlived its turn: killing {}",
                generation.number,
                few_of(&pids, ", ", |pid| found::describe_with_tracer(*pid))
            );
            self.note(generation, EventKind::Signalled, message);
        }
        // Of some nobody has known yet: one control group is killed as a whole, a family is not.
        self.memories.of_mut(generation).next_count = Some(Instant::now() + RETRY);
        let cgroup = self.cgroup_of(generation)?;
        take(Step::Kill, || {
            if let Some(cgroup) = cgroup.filter(|_| pids.len() == all.len()) {
                cgroup.kill().map_err(WorldError::from)?;
            }
            for some in pids.chunks(MOST_HELD) {
                let held = self.held(generation, some, Handle::open)?;
                held.iter().try_for_each(|it| send(it, rustix::process::Signal::KILL))?;
            }
            Ok(())
        })
    }

    /// Warns of a server that died: how, and what it left behind, which keeps its listener open and may never accept.
    pub(in crate::daemon) fn warn_of_orphans(&mut self, generation: GenerationId, ending: Ending) {
        let left = match self.pids_of(generation) {
            Ok(left) => left,
            Err(problem) => {
                return tracing::warn!(
                    problem = problem.in_full(),
                    "cannot list a generation's processes"
                );
            }
        };
        let serves = self
            .record_if_any(generation.service)
            .and_then(|it| it.service.generation(generation.number))
            .is_some_and(agent_rollout::Generation::can_serve);
        if serves && ending != Ending::Exited(0) {
            let left = match left.is_empty() {
                true => String::new(),
                false => format!(", and left {} behind", described(&left)),
            };
            let message =
                format!("the first process of generation {} {ending}{left}", generation.number);
            self.note(generation, EventKind::Warning, message);
        }
    }

    /// Warns of processes that are not the generation's, and have a listener of its all the same: an inherited descriptor
    /// in a stray child is a black hole, which takes connections that nobody accepts.
    ///
    /// # Errors
    ///
    /// When the holders cannot be listed.
    pub(in crate::daemon) fn warn_of_strays(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let service = self.record_if_any(generation.service).map(|record| &record.service);
        let Some(known) = service.and_then(|it| it.generation(generation.number)) else {
            return Ok(());
        };
        let cookies: HashSet<_> = known.listeners().iter().map(|it| it.cookie).collect();
        let mut open = self.listeners_of(generation.service)?;
        open.retain(|it| cookies.contains(&it.cookie.0));
        let strays = holders_of(&open)?;
        if !strays.is_empty() {
            let message = format!(
                "generation {} has ended, and its listener is still held by {}: end it, connections may wait there for nobody",
                generation.number,
                described(&strays),
            );
            self.note(generation, EventKind::Warning, message);
        }
        Ok(())
    }

    /// Tells people something about a generation.
    pub(in crate::daemon) fn note(
        &mut self,
        generation: GenerationId,
        kind: EventKind,
        message: String,
    ) {
        if let Some(record) = self.records.get(&generation.service) {
            let name = record.service.name().clone();
            self.journal.note(&name, Some(generation.number), kind, message);
        }
    }
}

/// So many processes are held at once: each takes a descriptor.
const MOST_HELD: usize = 256;

/// The kernel leaves those out that are dead and not reaped yet (`css_task_iter_advance`).
fn members(cgroup: &Cgroup) -> Result<Vec<Pid>, WorldError> {
    cgroup.pids().map_err(WorldError::from)
}

/// A process that has ended meanwhile needs no signal.
fn send(process: &Handle, signal: rustix::process::Signal) -> Result<(), WorldError> {
    if process.pid().get() == 1 {
        tracing::warn!(
            ?signal,
            "process 1 is not signalled: with it the kernel would end everything here, the agent too"
        );
        return Ok(());
    }
    match process.signal(signal) {
        Ok(()) => {
            tracing::info!(pid = process.pid().get(), ?signal, "signalled");
            Ok(())
        }
        Err(error) if !process.is_alive()? => {
            tracing::debug!(%error, "already gone");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn holders_of(listeners: &[Listener]) -> Result<Vec<Pid>, WorldError> {
    let inodes: HashSet<SocketInode> = listeners.iter().map(|it| it.inode).collect();
    if inodes.is_empty() {
        return Ok(Vec::new());
    }
    Ok(holders::holders(&inodes)?.found.into_iter().map(|holder| holder.pid).collect())
}

fn described(pids: &[Pid]) -> String {
    few_of(pids, ", ", |pid| format!("process {}", found::describe(*pid)))
}
