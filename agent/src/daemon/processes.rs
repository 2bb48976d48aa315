//! The processes of a generation: listed, told to end, killed, and found out if they outlive their turn.

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use super::{
    agent::{Agent, RETRY},
    found,
    step::{Step, change},
};
use crate::{
    api::{EventKind, Problem, ProblemKind},
    host::{
        cgroup::Cgroup,
        holders,
        process::{Ending, Pid, Process, ProcessError},
        sock_diag::{Listener, SocketInode},
    },
    rollout::Phase,
    service::{Endpoint, GenerationId, ServiceId, Signal},
    sys,
};

impl Agent {
    /// The processes of a generation that live now.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(super) fn pids_of(&self, generation: GenerationId) -> Result<Vec<Pid>, Problem> {
        let mut pids: BTreeSet<Pid> = self.datapath.members(generation)?.into_iter().collect();
        if let Some(cgroup) = self.cgroup_of(generation)? {
            pids.extend(members(&cgroup)?);
        }
        // One that ends is no member any more before it has closed its sockets.
        let written = self.generation(generation).map(|known| &known.processes[..]);
        for identity in written.unwrap_or_default() {
            if !pids.contains(&identity.pid) && Process::lives(*identity)? {
                pids.insert(identity.pid);
            }
        }
        Ok(pids.into_iter().collect())
    }

    /// The same, held: what is done to them can hit nobody who gets one of their numbers later.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(super) fn processes_of(&self, generation: GenerationId) -> Result<Vec<Process>, Problem> {
        let mut opened = Vec::new();
        for pid in self.pids_of(generation)? {
            match Process::open(pid) {
                Ok(process) => opened.push(process),
                Err(ProcessError::Gone { .. }) => {}
                // Of one that cannot be looked at nobody knows that it is dead.
                Err(error) => return Err(error.into()),
            }
        }
        // Whose number was given to a stranger before it was opened belongs to the generation no more.
        let still: HashSet<_> = self.pids_of(generation)?.into_iter().collect();
        Ok(opened.into_iter().filter(|it| still.contains(&it.pid())).collect())
    }

    /// Only the root processes: they know how to end their workers. When a root has ended and others live, those that are
    /// roots then are told in turn, see [`Self::tell_next_roots`]. One that cannot be told (a security module may forbid it) is
    /// killed when its time is up, as one that does not listen is.
    pub(super) fn signal(
        &mut self,
        generation: GenerationId,
        signal: Signal,
    ) -> Result<(), Problem> {
        let processes = self.processes_of(generation)?;
        let pids: Vec<_> = processes.iter().map(Process::pid).collect();
        let roots = holders::roots(&pids)?;
        let told = self.told.entry(generation).or_default();
        let masters: Vec<_> = processes
            .iter()
            .filter(|it| roots.contains(&it.pid()) && !told.contains(&it.identity()))
            .collect();
        let refused: Vec<_> = change(Step::Signal, || {
            let sent = masters.iter().map(|process| send(process, sys::signal::to_rustix(signal)));
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
        if processes.is_empty() {
            self.note_exit(generation);
            return Ok(());
        }
        self.count_processes(generation)
    }

    /// A root of a generation that was told to end has ended, and may have passed nothing on: a shell that waits for its
    /// command dies of the signal alone. Those that are left are told. While flows are finished by a server that does so by
    /// itself, only if one still listens: whoever was told closes its listeners first, and a second signal makes many
    /// servers quit at once.
    pub(super) fn tell_next_roots(&mut self, generation: GenerationId) -> Result<(), Problem> {
        let Some(known) = self.generation(generation).filter(|it| it.told) else { return Ok(()) };
        let signal = match known.phase {
            Phase::Stopping { killed: false, signal, .. } => signal,
            Phase::Finishing { signal, .. } if self.listens(generation)? => signal,
            _ => return Ok(()),
        };
        if self.pids_of(generation)?.is_empty() {
            return Ok(());
        }
        self.signal(generation, signal)
    }

    /// Every process, and people are told which ones had to be.
    pub(super) fn kill(&mut self, generation: GenerationId) -> Result<(), Problem> {
        let processes = self.processes_of(generation)?;
        if !processes.is_empty() {
            let killed: Vec<_> =
                processes.iter().map(|it| found::describe_with_tracer(it.pid())).collect();
            let message = format!(
                "generation {} outlived its turn: killing {}",
                generation.number,
                killed.join(", ")
            );
            self.note(generation, EventKind::Signalled, message);
        }
        // Of some nobody has known yet: one control group is killed as a whole, a family is not.
        self.recounts.insert(generation, Instant::now() + RETRY);
        let cgroup = self.cgroup_of(generation)?;
        change(Step::Kill, || {
            if let Some(cgroup) = cgroup {
                cgroup.kill().map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
            }
            processes.iter().try_for_each(|process| send(process, rustix::process::Signal::KILL))
        })
    }

    /// Warns of a server that died: how, and what it left behind, which keeps its listener open and may never accept.
    pub(super) fn warn_of_orphans(&mut self, generation: GenerationId, ending: Ending) {
        let left = match self.pids_of(generation) {
            Ok(left) => left,
            Err(problem) => return tracing::warn!(%problem, "cannot list a generation's processes"),
        };
        let serves = self
            .record_if_any(generation.service)
            .and_then(|it| it.service.generation(generation.number))
            .is_some_and(crate::rollout::Generation::can_serve);
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
    pub(super) fn warn_of_strays(&mut self, generation: GenerationId) -> Result<(), Problem> {
        let service = self.record_if_any(generation.service).map(|record| &record.service);
        let Some(known) = service.and_then(|it| it.generation(generation.number)) else {
            return Ok(());
        };
        let cookies: HashSet<_> = known.listeners.iter().map(|it| it.cookie).collect();
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

    /// Refuses to leave a port to the kernel's own lookup while it would find a listener there that is not the service's. Where
    /// nobody of the service serves, it does so already.
    ///
    /// # Errors
    ///
    /// When there is one, or the listeners cannot be listed.
    pub(super) fn refuse_strays(&self, id: ServiceId) -> Result<(), Problem> {
        let service = &self.record(id).service;
        if !service.is_served() {
            return Ok(());
        }
        let known: HashSet<_> =
            service.generations.iter().flat_map(|it| &it.listeners).map(|it| it.cookie).collect();
        let (own, mut others): (Vec<_>, Vec<_>) =
            self.listeners_of(id)?.into_iter().partition(|it| known.contains(&it.cookie.0));
        others.retain(|it| competes(it, &own, &service.endpoints));
        let mut pids = HashSet::new();
        for generation in &service.generations {
            pids.extend(self.pids_of(GenerationId { service: id, number: generation.number })?);
        }
        let strays: Vec<_> =
            holders_of(&others)?.into_iter().filter(|pid| !pids.contains(pid)).collect();
        if strays.is_empty() {
            return Ok(());
        }
        let strays: Vec<_> = strays.iter().map(|pid| found::describe_with_parent(*pid)).collect();
        let message = format!(
            "others listen on the port too, and without steering the kernel would give them connections: process {}",
            strays.join("; process ")
        );
        Err(Problem::new(ProblemKind::Locked, message)
            .fix("end them first, and whoever starts them again"))
    }

    /// Tells people something about a generation.
    pub(super) fn note(&mut self, generation: GenerationId, kind: EventKind, message: String) {
        if let Some(record) = self.records.get(&generation.service) {
            let name = record.service.name.clone();
            self.journal.note(&name, Some(generation.number), kind, message);
        }
    }
}

/// Whether the kernel's own lookup would find a listener for clients of these endpoints, beside those that serve them.
fn competes(listener: &Listener, own: &[Listener], endpoints: &[Endpoint]) -> bool {
    let address = found::address_of(listener);
    endpoints.iter().filter(|endpoint| endpoint.port == listener.port).any(|endpoint| {
        let own = own.iter().filter(|it| it.port == endpoint.port);
        // One that is bound to an interface goes before others there.
        let own: Vec<_> = own.filter(|_| listener.interface == 0).map(found::address_of).collect();
        address.competes(&own, endpoint.address)
    })
}

/// The kernel leaves those out that are dead and not reaped yet (`css_task_iter_advance`).
fn members(cgroup: &Cgroup) -> Result<Vec<Pid>, Problem> {
    cgroup.pids().map_err(|error| Problem::caused(ProblemKind::Failed, &error))
}

/// A process that has ended meanwhile needs no signal.
fn send(process: &Process, signal: rustix::process::Signal) -> Result<(), Problem> {
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

fn holders_of(listeners: &[Listener]) -> Result<Vec<Pid>, Problem> {
    let inodes: HashSet<SocketInode> = listeners.iter().map(|it| it.inode).collect();
    if inodes.is_empty() {
        return Ok(Vec::new());
    }
    Ok(holders::holders(&inodes)?.found.into_iter().map(|holder| holder.pid).collect())
}

fn described(pids: &[Pid]) -> String {
    let texts: Vec<_> =
        pids.iter().map(|pid| format!("process {}", found::describe(*pid))).collect();
    texts.join(", ")
}
