//! Hands a port back to the kernel.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use agent_api::{Detached, EventKind, Problem, ProblemKind};
use agent_rollout::{Origin, Phase};
use agent_terms::{GenerationId, ServiceId};

use crate::{
    daemon::{
        agent::Agent,
        feed::unchanged,
        looks::{attribute::address_of, observe},
        state::{state_file::Unfinished, troubles::Trouble},
        step::{Step, change},
    },
    datapath::Group,
    host::{
        process,
        sock_diag::{self, Listener},
    },
};

impl Agent {
    /// Detaches, unless that would cut somebody off.
    ///
    /// # Errors
    ///
    /// Refuses while more than one generation lives, and while the one that serves is not bound to the public port.
    pub(in crate::daemon) fn detach(&mut self, selector: &str) -> Result<Detached, Problem> {
        let id = self.select(selector)?;
        self.refuse_to_cut(id)?;
        self.refuse_strays(id)?;
        let service = self.record(id).service.name().clone();
        let warnings = self.release(id).map_err(|problem| self.half_done(id, problem))?;
        self.journal.note(&service, None, EventKind::Detached, format!("detached {service}"));
        self.changes.send_modify(|count| *count += 1);
        let last = self.records.is_empty();
        Ok(Detached { schema: agent_api::SCHEMA, changed: true, service, last, warnings })
    }

    fn refuse_to_cut(&self, id: ServiceId) -> Result<(), Problem> {
        let service = &self.record(id).service;
        if let Some(candidate) = service.candidate() {
            let message = format!("generation {} is being made ready", candidate.number());
            return Err(Problem::new(ProblemKind::Locked, message)
                .fix("wait for it, or take it back with `agent undo`"));
        }
        if let Some(other) = service
            .generations()
            .iter()
            .find(|it| !matches!(it.phase(), Phase::Primary | Phase::Dead))
        {
            let generation = GenerationId { service: id, number: other.number() };
            let counts = self.datapath.flow_counts(generation)?;
            let open = counts.open();
            let message = format!(
                "generation {} still lives, with {open} open flows: without steering the kernel would give it new connections, \
                 which it would cut when it ends",
                other.number()
            );
            let fix = match other.phase() {
                _ if service.settles() => {
                    "the new generation has to prove itself first (`agent status` says for how long): wait, or take it back with \
                     `agent undo`"
                }
                Phase::Standby { .. } => {
                    "it is kept to fall back to (`--keep-old`): wait until that is over"
                }
                _ => "wait until it has drained (`agent status`)",
            };
            let pids = self.pids_of(generation)?;
            let tracer = pids.into_iter().find_map(|pid| Some((pid, process::tracer_of(pid)?)));
            return Err(Problem::new(ProblemKind::Locked, message).fix(match tracer {
                Some((pid, tracer)) => format!(
                    "process {pid} of it is traced by process {tracer}, which can keep it from ending: end that one, and {fix}"
                ),
                None => fix.to_owned(),
            }));
        }
        match service.primary() {
            Some(primary) if primary.is_reached_by_steering_alone() => {
                let places: Vec<_> =
                    primary.listeners().iter().map(|it| it.bound.to_string()).collect();
                let message = format!(
                    "generation {} listens on {}, and only steering leads there: clients would be refused",
                    primary.number(),
                    places.join(", ")
                );
                Err(Problem::new(ProblemKind::Preflight, message)
                    .fix("upgrade once more: the next generation can bind the public port itself"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A detach that was begun is to be finished.
    fn half_done(&self, id: ServiceId, problem: Problem) -> Problem {
        match self.record_if_any(id) {
            Some(record) if record.unfinished.is_some() && problem.fix.is_none() => {
                problem.fix("detach it again, which goes on where it ended")
            }
            Some(_) | None => problem,
        }
    }

    /// Removes every trace of a service. Steering goes before all that rests on it, so that a failure later cuts nobody off.
    /// Written down before it begins: an agent that finds it half done finishes it. Returns what people should know.
    ///
    /// # Errors
    ///
    /// When a step fails; calling again continues.
    pub(in crate::daemon) fn release(&mut self, id: ServiceId) -> Result<Vec<String>, Problem> {
        let record = self.record(id).clone();
        let before = self.record_mut(id).unfinished.replace(Unfinished::Detach);
        if let Err(problem) = self.save() {
            self.record_mut(id).unfinished = before;
            return Err(unchanged(problem));
        }
        self.give_all_names_back(id)?;
        self.leave_queues(id)?;
        let others = self.records.iter().filter(|(other, _)| **other != id);
        let others = others.map(|(id, record)| (*id, record.service.endpoints()));
        change(Step::SetEndpoints, || Ok(self.datapath.set_endpoints(others)?))?;
        self.release_sockets(id)?;
        let mut warnings = Vec::new();
        for generation in record.service.generations() {
            let key = GenerationId { service: id, number: generation.number() };
            self.forget_what_was_seen(key);
            change(Step::ForgetGeneration, || {
                Ok(self.datapath.forget(key, record.service.endpoints())?)
            })?;
            if let Origin::Launched { .. } = generation.origin() {
                warnings.extend(self.return_processes(key, record.origin_cgroup.as_ref())?);
            }
        }
        change(Step::ForgetService, || Ok(self.datapath.forget_service(id)?))?;
        self.records.remove(&id);
        self.let_go_of_ports(id);
        self.memories.forget_service(id);
        self.strangers.forget(id);
        self.returns.forget(id);
        self.moot(Trouble::Successor(id));
        self.moot(Trouble::Effect(id));
        self.moot(Trouble::Output(id));
        self.moves.remove(&id);
        self.outstanding.forget(id);
        let removed = change(Step::RemoveLogs, || self.remove_logs(&record.service));
        if let Err(problem) = removed {
            // They are in nobody's way, and the service is gone already.
            tracing::warn!(%problem, "cannot remove the logs of generations that are gone");
        }
        self.save_or_owe();
        Ok(warnings)
    }

    /// Removes our tags and switches off the socket options that we switched on. Connections that inherited options keep
    /// them: nobody can set those from outside, and they mean something only to a bind of their port.
    fn release_sockets(&mut self, id: ServiceId) -> Result<(), Problem> {
        let service = &self.record(id).service;
        let known = service.known_listeners();
        let mut listeners = self.listeners_of(id)?;
        listeners.retain(|listener| known.contains(&listener.cookie.0));
        let cookies: Vec<_> = listeners.iter().map(|it| it.cookie.0).collect();
        change(Step::ReleaseSockets, || {
            self.datapath.release_listeners(&cookies)?;
            forget_sharing(&listeners);
            Ok(())
        })?;
        let ours = |flow: &&sock_diag::Connection| {
            observe::owner(flow).is_some_and(|key| key.service == id.0)
        };
        let flows = self.all_tagged_flows()?;
        let addresses = flows.iter().filter(ours).map(address_of);
        change(Step::ReleaseSockets, || Ok(self.datapath.release_flows(addresses)?))
    }

    /// Puts the processes of a launched generation where its predecessor's were, so that its cgroup can go.
    fn return_processes(
        &mut self,
        generation: GenerationId,
        origin: &Path,
    ) -> Result<Vec<String>, Problem> {
        let Some(cgroup) = self.cgroup_of(generation)? else { return Ok(Vec::new()) };
        let said = self.move_home(generation, &cgroup, origin)?;
        let failed = |error| Problem::caused(ProblemKind::Failed, &error);
        change(Step::RemoveCgroup, || cgroup.remove().map_err(failed))?;
        Ok(said)
    }

    /// Removes pins, cgroup and files; the log too if that is of an agent in the background, which has nothing more to say.
    /// Called with no service left.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub(in crate::daemon) fn leave_no_trace(self, with_log: bool) -> Result<(), Problem> {
        let Self { datapath, groups, hierarchy, places, above, .. } = self;
        change(Step::RemovePins, || Ok(datapath.remove()?))?;
        change(Step::RemoveCgroup, || {
            groups.remove(&hierarchy).map_err(|error| Problem::caused(ProblemKind::Failed, &error))
        })?;
        change(Step::RemoveFiles, || {
            // What fails before this is told there.
            let logs = with_log.then(|| places.logs()).into_iter().flatten();
            let files = places.files().into_iter().chain(logs).collect::<Vec<_>>();
            remove_files(&files, [places.services_dir(), places.runtime_dir])?;
            above.remove();
            Ok(())
        })
    }
}

/// The kernel remembers that the ports were shared, as long as anybody is there, and would let any process of the same user share them
/// without a look at whoever listens.
fn forget_sharing(listeners: &[Listener]) {
    let group = |it: &Listener| Group {
        address: (it.address, it.port).into(),
        v6only: it.v6only,
        uid: it.uid,
    };
    for group in listeners.iter().map(group).collect::<BTreeSet<_>>() {
        if let Err(error) = group.forget_sharing() {
            let problem = Problem::from(error).in_full();
            tracing::warn!(problem, "processes of the server's user may still share its port");
        }
    }
}

fn remove_files(files: &[PathBuf], directories: [PathBuf; 2]) -> Result<(), Problem> {
    let failed = |path: &Path, error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("remove `{}`: {error}", path.display()))
    };
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(file, error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    for directory in directories {
        match fs::remove_dir(&directory) {
            // The log of a server that goes on, or somebody else's files; a file system of its own.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
                ) => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&directory, error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
