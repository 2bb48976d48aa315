//! Hands a port back to the kernel.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use agent_api::{Detached, EventKind, Problem};
use agent_rollout::{Origin, Phase};
use agent_terms::{Endpoint, GenerationId, ServiceId};

use super::error::{RequestError, Until};
use crate::{
    daemon::{
        agent::Agent,
        few::few_of,
        identify::found,
        looks::{attribute::address_of, observe},
        state::{state_file::Unfinished, troubles::Trouble},
        step::{Step, take},
        world_error::WorldError,
    },
    datapath::Group,
    host::{
        holders,
        process::{self, Pid},
        sock_diag::{self, Listener},
    },
};

impl Agent {
    /// Detaches, unless that would cut somebody off.
    ///
    /// # Errors
    ///
    /// Refuses while more than one generation lives, and while the one that serves is not bound to the public port.
    pub(in crate::daemon) fn detach(&mut self, selector: &str) -> Result<Detached, RequestError> {
        let id = self.select(selector)?;
        self.refuse_to_cut(id)?;
        self.refuse_strays(id)?;
        let service = self.record(id).service.name().clone();
        let warnings = self.release(id).map_err(|error| self.half_done(id, error))?;
        self.journal.note(&service, None, EventKind::Detached, format!("detached {service}"));
        self.changes.send_modify(|count| *count += 1);
        let last = self.records.is_empty();
        Ok(Detached { schema: agent_api::SCHEMA, changed: true, service, last, warnings })
    }

    fn refuse_to_cut(&self, id: ServiceId) -> Result<(), RequestError> {
        let service = &self.record(id).service;
        if let Some(candidate) = service.candidate() {
            return Err(RequestError::MadeReady { generation: candidate.number() });
        }
        if let Some(other) = service
            .generations()
            .iter()
            .find(|it| !matches!(it.phase(), Phase::Primary | Phase::Dead))
        {
            let generation = GenerationId { service: id, number: other.number() };
            let open = self.datapath.flow_counts(generation)?.open();
            let until = match other.phase() {
                _ if service.settles() => Until::Settled,
                Phase::Standby { .. } => Until::Kept,
                _ => Until::Drained,
            };
            let pids = self.pids_of(generation)?;
            let traced = pids.into_iter().find_map(|pid| Some((pid, process::tracer_of(pid)?)));
            let generation = other.number();
            return Err(RequestError::StillLives { generation, open, until, traced });
        }
        match service.primary() {
            Some(primary) if primary.is_reached_by_steering_alone() => {
                let places = primary.listeners().iter().map(|it| it.bound).collect();
                Err(RequestError::SteeringAlone { generation: primary.number(), places })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A detach that was begun is to be finished.
    fn half_done(&self, id: ServiceId, error: WorldError) -> RequestError {
        match self.record_if_any(id) {
            Some(record) if record.unfinished.is_some() => RequestError::HalfDone(error),
            Some(_) | None => RequestError::World(error),
        }
    }

    /// Refuses to leave a port to the kernel's own lookup while it would find a listener there that is not the service's. Where
    /// nobody of the service serves, it does so already.
    ///
    /// # Errors
    ///
    /// When there is one, or the listeners cannot be listed.
    fn refuse_strays(&self, id: ServiceId) -> Result<(), RequestError> {
        let service = &self.record(id).service;
        if !service.is_served() {
            return Ok(());
        }
        let known = service.known_listeners();
        let (own, mut others): (Vec<_>, Vec<_>) =
            self.listeners_of(id)?.into_iter().partition(|it| known.contains(&it.cookie.0));
        others.retain(|it| competes(it, &own, service.endpoints()));
        let pids = self.pids_of_service(id)?;
        let inodes = others.iter().map(|it| it.inode).collect();
        let holders = holders::holders(&inodes)?.found;
        let hidden =
            inodes.len() - holders.iter().flat_map(|it| &it.inodes).collect::<HashSet<_>>().len();
        let strays: Vec<_> =
            holders.into_iter().map(|it| it.pid).filter(|pid| !pids.contains(pid)).collect();
        if strays.is_empty() && hidden == 0 {
            return Ok(());
        }
        let described = |pid: &Pid| format!("process {}", found::describe_with_parent(*pid));
        let processes = (!strays.is_empty()).then(|| few_of(&strays, ", ", described));
        Err(RequestError::Strays { processes, hidden })
    }

    /// Removes every trace of a service. Steering goes before all that rests on it, so that a failure later cuts nobody off.
    /// Written down before it begins: an agent that finds it half done finishes it. Returns what people should know.
    ///
    /// # Errors
    ///
    /// When a step fails; calling again continues.
    pub(in crate::daemon) fn release(&mut self, id: ServiceId) -> Result<Vec<String>, WorldError> {
        let record = self.record(id).clone();
        let before = self.record_mut(id).unfinished.replace(Unfinished::Detach);
        if let Err(error) = self.save() {
            self.record_mut(id).unfinished = before;
            return Err(WorldError::Unsaved(Box::new(error)));
        }
        self.give_all_names_back(id)?;
        self.leave_queues(id)?;
        let others = self.records.iter().filter(|(other, _)| **other != id);
        let others = others.map(|(id, record)| (*id, record.service.endpoints()));
        take(Step::SetEndpoints, || Ok(self.datapath.set_endpoints(others)?))?;
        self.release_sockets(id)?;
        let mut warnings = Vec::new();
        for generation in record.service.generations() {
            let key = GenerationId { service: id, number: generation.number() };
            self.forget_what_was_seen(key);
            take(Step::ForgetGeneration, || {
                Ok(self.datapath.forget(key, record.service.endpoints())?)
            })?;
            if let Origin::Launched { .. } = generation.origin() {
                warnings.extend(self.return_processes(key, record.origin_cgroup.as_ref())?);
            }
        }
        take(Step::ForgetService, || Ok(self.datapath.forget_service(id)?))?;
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
        let removed = take(Step::RemoveLogs, || self.remove_logs(&record.service));
        if let Err(problem) = removed {
            // They are in nobody's way, and the service is gone already.
            tracing::warn!(
                problem = problem.in_full(),
                "cannot remove the logs of generations that are gone"
            );
        }
        self.save_or_owe();
        Ok(warnings)
    }

    /// Removes our tags and switches off the socket options that we switched on. Connections that inherited options keep
    /// them: nobody can set those from outside, and they mean something only to a bind of their port.
    fn release_sockets(&mut self, id: ServiceId) -> Result<(), WorldError> {
        let service = &self.record(id).service;
        let known = service.known_listeners();
        let mut listeners = self.listeners_of(id)?;
        listeners.retain(|listener| known.contains(&listener.cookie.0));
        let cookies: Vec<_> = listeners.iter().map(|it| it.cookie.0).collect();
        take(Step::ReleaseSockets, || {
            self.datapath.release_listeners(&cookies)?;
            forget_sharing(&listeners);
            Ok(())
        })?;
        let ours = |flow: &&sock_diag::Connection| {
            observe::owner(flow).is_some_and(|key| key.service == id.0)
        };
        let flows = self.all_tagged_flows()?;
        let addresses = flows.iter().filter(ours).map(address_of);
        take(Step::ReleaseSockets, || Ok(self.datapath.release_flows(addresses)?))
    }

    /// Puts the processes of a launched generation where its predecessor's were, so that its cgroup can go.
    fn return_processes(
        &mut self,
        generation: GenerationId,
        origin: &Path,
    ) -> Result<Vec<String>, WorldError> {
        let Some(cgroup) = self.cgroup_of(generation)? else { return Ok(Vec::new()) };
        let said = self.move_home(generation, &cgroup, origin)?;
        take(Step::RemoveCgroup, || Ok(cgroup.remove()?))?;
        Ok(said)
    }

    /// Removes pins, cgroup and files; the log too if that is of an agent in the background, which has nothing more to say.
    /// Called with no service left.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub(in crate::daemon) fn leave_no_trace(self, with_log: bool) -> Result<(), WorldError> {
        let Self { datapath, groups, hierarchy, places, above, .. } = self;
        take(Step::RemovePins, || Ok(datapath.remove()?))?;
        take(Step::RemoveCgroup, || groups.remove(&hierarchy).map_err(WorldError::from))?;
        take(Step::RemoveFiles, || {
            // What fails before this is told there.
            let logs = with_log.then(|| places.logs()).into_iter().flatten();
            let files = places.files().into_iter().chain(logs).collect::<Vec<_>>();
            remove_files(&files, [places.services_dir(), places.runtime_dir])?;
            above.remove();
            Ok(())
        })
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

fn remove_files(files: &[PathBuf], directories: [PathBuf; 2]) -> Result<(), WorldError> {
    let failed = |path: &Path, source| WorldError::Remove { path: path.to_owned(), source };
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
