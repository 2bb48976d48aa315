//! What else a server does and ends with it, who brings it back, and who only looks on.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use agent_terms::{GenerationId, ServiceId, ServiceName};

use super::{
    error::IdentifyError,
    found::{Found, describe, describe_with_parent},
};
use crate::{
    daemon::{
        agent::Agent,
        few::{MOST, few, few_of},
        looks::observe,
        state::state_file::Record,
        world_error::WorldError,
    },
    host::{
        holders,
        process::{Pid, ProcessError},
        process_table::ProcessTable,
        sock_diag::{self, Listener},
        supervisor::{Kind, Supervisor},
    },
};

impl Agent {
    /// Refuses a server of which a process is in the charge of another service already: it would be told to end by both.
    ///
    /// # Errors
    ///
    /// When that is so, or the processes cannot be listed.
    pub(in crate::daemon) fn refuse_shared(
        &self,
        server: &Found,
        service: Option<ServiceId>,
    ) -> Result<(), IdentifyError> {
        let others = self.records.keys().copied().filter(|id| Some(*id) != service);
        for id in others {
            let theirs = self.pids_of_service(id)?;
            let Some(shared) = server.pids.iter().find(|pid| theirs.contains(pid)) else {
                continue;
            };
            let service = &self.record(id).service;
            return Err(IdentifyError::Shared {
                process: describe(*shared),
                service: service.name().clone(),
                ports: together(service.endpoints(), &server.listeners),
            });
        }
        Ok(())
    }

    /// Whether one of a service's generations has this process.
    ///
    /// # Errors
    ///
    /// When the processes cannot be listed.
    pub(in crate::daemon) fn has_process(
        &self,
        id: ServiceId,
        pid: i32,
    ) -> Result<bool, WorldError> {
        Ok(self.pids_of_service(id)?.iter().any(|it| it.get() == pid))
    }

    pub(in crate::daemon) fn pids_of_service(
        &self,
        id: ServiceId,
    ) -> Result<HashSet<Pid>, WorldError> {
        let mut pids = HashSet::new();
        for generation in self.record(id).service.generations() {
            pids.extend(self.pids_of(GenerationId { service: id, number: generation.number() })?);
        }
        Ok(pids)
    }

    /// Refuses to replace a generation that would take something else along, or that would be started again.
    ///
    /// # Errors
    ///
    /// When that is so, or cannot be found out.
    pub(in crate::daemon) fn refuse_what_else_ends(
        &self,
        id: ServiceId,
    ) -> Result<(), IdentifyError> {
        let service = &self.record(id).service;
        let Some(primary) = service.primary() else { return Ok(()) };
        let pids = self.pids_of(GenerationId { service: id, number: primary.number() })?;
        if let Some((pid, kind)) = supervisor_among(&pids)? {
            return Err(IdentifyError::Supervisor {
                process: describe(pid),
                generation: primary.number(),
                supervisor: kind.name,
            });
        }
        let public = observe::ports(service.endpoints());
        let known = service.known_listeners();
        let beside =
            served_beside(&pids, |it| !public.contains(&it.port) && !known.contains(&it.cookie.0))?;
        if !beside.is_empty() {
            return Err(self.takes_along(service.name(), &public, &beside));
        }
        match restarting(&pids)? {
            None => Ok(()),
            Some(restarter) => Err(IdentifyError::StartedAgain(restarter)),
        }
    }

    fn takes_along(
        &self,
        name: &ServiceName,
        public: &[u16],
        beside: &BTreeMap<u16, Pid>,
    ) -> IdentifyError {
        let of_service = |port: &u16| {
            let of =
                |record: &&Record| record.service.endpoints().iter().any(|it| it.port == *port);
            self.records.values().find(of).map(|record| record.service.name().clone())
        };
        let servers: Vec<_> = by_server(beside, of_service).into_iter().collect();
        let described = few_of(&servers, ", ", |((service, pid), ports)| {
            let of = service.as_ref().map(|it| format!(" of service `{it}`")).unwrap_or_default();
            format!("{}{of} by process {}", named(ports), describe(*pid))
        });
        IdentifyError::TakesAlong {
            service: name.clone(),
            others: described,
            ports: public.iter().chain(beside.keys()).copied().collect(),
        }
    }

    /// What to know of a server that is attached.
    pub(in crate::daemon) fn warnings(&self, id: ServiceId, server: &Found) -> Vec<String> {
        let mut warnings = other_ports(server);
        warnings.extend(self.left_alone(id, server));
        warnings.extend(rivals(&server.rivals, &ports(&server.listeners)));
        warnings.extend(server.root().ok().and_then(forwarder));
        if let Ok(Some(restarter)) = restarting(&server.pids) {
            warnings.push(format!("{restarter}: before an upgrade, {}", restarter.way_out()));
        }
        warnings.extend(self.other_steering());
        warnings
    }

    /// That processes have a listener open and are not the server, nor belong to it by birth.
    pub(in crate::daemon) fn left_alone(&self, id: ServiceId, server: &Found) -> Vec<String> {
        let members = self.pids_of_service(id).unwrap_or_default();
        let bystanders = server.bystanders.iter().filter(|pid| !members.contains(pid));
        let warning = |pid: &Pid| {
            format!(
                "process {} has the listener open too, and is left alone: it is neither copied nor told to end",
                describe(*pid)
            )
        };
        let all = bystanders.clone().count();
        let mut warnings: Vec<_> = bystanders.take(MOST).map(warning).collect();
        if all > MOST {
            warnings.push(format!(
                "{} more processes have the listener open, and are left alone",
                all - MOST
            ));
        }
        warnings
    }
}

/// That processes of others listen on ports of a service: they starve, as long as steering gives all connections to it.
pub(in crate::daemon) fn rivals(pids: &[Pid], ports: &[u16]) -> Option<String> {
    (!pids.is_empty()).then(|| {
        format!(
            "other processes listen on port {} too, and get no new connection as long as it is attached: {}",
            listed(ports),
            few_of(pids, "; ", |pid| describe_with_parent(*pid))
        )
    })
}

/// Ports that the server or a child of it has besides the attached ones: the next generation would find them taken, and
/// what serves them ends with the server.
fn other_ports(server: &Found) -> Vec<String> {
    let attached = ports(&server.listeners);
    let beside = match served_beside(&server.pids, |listener| !attached.contains(&listener.port)) {
        Ok(beside) => beside,
        Err(problem) => {
            tracing::warn!(
                problem = problem.in_full(),
                "cannot find out what else the server serves"
            );
            return Vec::new();
        }
    };
    let warning = |(own, pid): (bool, Pid), ports: &[u16]| match own {
        true => format!(
            "the server listens on {} too: attach all together, or the next generation finds that taken, and an upgrade ends it \
             (`--also`)",
            named(ports)
        ),
        false => format!(
            "a child of the server, process {}, serves {}: it ends with the server, and so an upgrade needs `--also`",
            describe(pid),
            named(ports)
        ),
    };
    let servers = by_server(&beside, |_| ());
    let more = servers.len().saturating_sub(MOST);
    let mut warnings: Vec<_> = servers
        .into_iter()
        .take(MOST)
        .map(|((_, pid), ports)| warning((server.pids.contains(&pid), pid), &ports))
        .collect();
    if more > 0 {
        warnings.push(format!("{more} more children of the server serve other ports"));
    }
    warnings
}

/// The ports of each process, apart by what else tells them apart.
fn by_server<K: Ord>(
    beside: &BTreeMap<u16, Pid>,
    apart: impl Fn(&u16) -> K,
) -> BTreeMap<(K, Pid), Vec<u16>> {
    let mut servers = BTreeMap::<_, Vec<_>>::new();
    for (port, pid) in beside {
        servers.entry((apart(port), *pid)).or_default().push(*port);
    }
    servers
}

/// What these processes and their descendants listen on, as far as it is wanted to be known; one process for each port,
/// one of the given where one has it.
fn served_beside(
    pids: &[Pid],
    wanted: impl Fn(&Listener) -> bool,
) -> Result<BTreeMap<u16, Pid>, WorldError> {
    let mut listeners = sock_diag::listeners()?;
    listeners.retain(wanted);
    let inodes: HashSet<_> = listeners.iter().map(|listener| listener.inode).collect();
    if inodes.is_empty() || pids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let all = ProcessTable::read()?.with_descendants(pids);
    let mut holders = holders::holders_among(all, &inodes)?.found;
    let own: HashSet<Pid> = pids.iter().copied().collect();
    holders.sort_by_key(|holder| (!own.contains(&holder.pid), holder.pid));
    let mut found = BTreeMap::new();
    for holder in holders {
        for listener in listeners.iter().filter(|it| holder.inodes.contains(&it.inode)) {
            found.entry(listener.port).or_insert(holder.pid);
        }
    }
    Ok(found)
}

/// The first of these processes that is a supervisor. One that another of them has forked, and that has executed nothing since, is
/// a part of that.
fn supervisor_among(pids: &[Pid]) -> Result<Option<(Pid, &'static Kind)>, ProcessError> {
    let table = ProcessTable::read_these(pids)?;
    let execution = |pid: Pid| table.row(pid)?.execution;
    let is_forked = |pid: &Pid| {
        let parent = table.row(*pid).and_then(|row| row.parent);
        parent.and_then(execution).is_some_and(|it| execution(*pid) == Some(it))
    };
    let own = pids.iter().filter(|pid| !is_forked(pid));
    Ok(own.copied().find_map(|pid| Some((pid, Kind::of(pid)?))))
}

/// The first of these processes whose supervisor would start it again.
fn restarting(pids: &[Pid]) -> Result<Option<Restarter>, ProcessError> {
    for pid in holders::roots(pids)? {
        // One that has just ended has none.
        let supervisor = Supervisor::of(pid).ok().flatten();
        if let Some(supervisor) = supervisor.filter(Supervisor::restarts) {
            let (server, process) = (describe(pid), describe(supervisor.pid));
            return Ok(Some(Restarter { kind: supervisor.kind, process, server }));
        }
    }
    Ok(None)
}

/// A supervisor that would start a server again. Processes are as people know them.
#[derive(Debug)]
pub(in crate::daemon) struct Restarter {
    kind: &'static Kind,
    process: String,
    server: String,
}

impl Restarter {
    /// What to do before an upgrade.
    pub(super) fn way_out(&self) -> String {
        let Kind { name, way, .. } = self.kind;
        match self.kind.says_whether() {
            true => format!("tell {name} to let it end ({way}); with `--also` it may come back"),
            false => format!(
                "tell {name} to let it end ({way}), and say `--also` then, because nobody can read from outside whether it will"
            ),
        }
    }
}

impl fmt::Display for Restarter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, process, server } = self;
        let name = kind.name;
        write!(f, "{name} (process {process}) starts process {server} again when it ends")
    }
}

/// That a process only passes connections on to a container.
fn forwarder(pid: Pid) -> Option<String> {
    const FORWARDERS: [&str; 5] =
        ["docker-proxy", "rootlessport", "rootlesskit", "slirp4netns", "pasta"];
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = program.file_name()?.to_str()?;
    FORWARDERS.contains(&name).then(|| {
        format!(
            "process {} passes this port on to a container: what comes from outside may never reach it, and the server itself is \
             elsewhere: attach where that listens",
            describe(pid)
        )
    })
}

fn together(endpoints: &[agent_terms::Endpoint], listeners: &[Listener]) -> Vec<u16> {
    let mut all = observe::ports(endpoints);
    all.extend(ports(listeners));
    all.dedup();
    all
}

/// As `--port` takes them.
pub(super) fn joined(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The ports of these listeners, each once.
pub(super) fn ports(listeners: &[Listener]) -> Vec<u16> {
    let mut ports: Vec<_> = listeners.iter().map(|listener| listener.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// For a sentence, with their noun.
fn named(ports: &[u16]) -> String {
    format!("{} {}", if ports.len() == 1 { "port" } else { "ports" }, listed(ports))
}

fn listed(ports: &[u16]) -> String {
    few(&ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_together_for_each_process_and_not_all() {
        let pid = |number| Pid::new(number).unwrap();
        let beside = (1_000..1_100).map(|port| (port, pid(7))).chain([(80, pid(8))]).collect();
        let servers = by_server(&beside, |_| ());
        assert_eq!(servers.len(), 2);
        assert_eq!(named(&servers[&((), pid(8))]), "port 80");
        let many = named(&servers[&((), pid(7))]);
        assert!(
            many.starts_with("ports 1000, 1001, ") && many.ends_with("1015 and 84 more"),
            "{many}"
        );
    }
}
