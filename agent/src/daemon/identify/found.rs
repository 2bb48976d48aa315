//! A server that runs, as the kernel maps and the state have it.

use agent_rollout::{ListenerRecord, PortHold};
use agent_terms::{Endpoint, LocalAddress, ServiceName};

use super::error::IdentifyError;
use crate::{
    daemon::world_error::WorldError,
    datapath::ListenerToAdopt,
    host::{
        holders, kin,
        process::{self, Pid, Process, ProcessIdentity},
        sock_diag::Listener,
    },
};

/// A server that runs: listeners that belong together.
pub(in crate::daemon) struct Found {
    pub(in crate::daemon) listeners: Vec<Listener>,
    pub(in crate::daemon) pids: Vec<Pid>,
    /// Processes that have one of the listeners open, and are not the server.
    pub(in crate::daemon) bystanders: Vec<Pid>,
    /// Processes of others that listen on the same ports.
    pub(in crate::daemon) rivals: Vec<Pid>,
}

impl Found {
    /// The process that was there first: its user, directory and environment are what the next generation gets.
    pub(in crate::daemon) fn root(&self) -> Result<Pid, WorldError> {
        let first = holders::roots(&self.pids)?.first().or(self.pids.first()).copied();
        first.ok_or(WorldError::NoProcess)
    }

    /// Its processes, as they are written down.
    pub(in crate::daemon) fn processes(&self) -> Vec<ProcessIdentity> {
        identities(&self.pids)
    }
}

/// Those of these processes that run, to be written down for an agent that finds no kernel maps. Of a server with thousands they
/// are the first ones.
pub(in crate::daemon) fn identities(pids: &[Pid]) -> Vec<ProcessIdentity> {
    const MOST: usize = 256;
    let open = |pid: &Pid| Some(Process::open(*pid).ok()?.identity());
    pids.iter().take(MOST).filter_map(open).collect()
}

/// A process as people know it.
pub(in crate::daemon) fn describe(pid: Pid) -> String {
    let command = process::command_line(pid).unwrap_or_default();
    let command: Vec<_> = command.iter().map(|part| part.as_os_str().to_string_lossy()).collect();
    // Lines of its own would read as ours.
    let command: Vec<_> =
        command.iter().map(|part| part.replace(char::is_control, "\u{fffd}")).collect();
    // Who has overwritten its arguments with a shorter title leaves blanks behind.
    let command = command.join(" ");
    let short: String = command.trim_end().chars().take(MOST_SHOWN).collect();
    let more = if short.len() < command.trim_end().len() { "…" } else { "" };
    format!("{pid} ({short}{more})")
}

/// Characters of a command line: a process can give itself one of any length.
const MOST_SHOWN: usize = 400;

/// The same, and who started it: that may start it again. Nobody has to be told of the first process.
pub(in crate::daemon) fn describe_with_parent(pid: Pid) -> String {
    const FIRST: i32 = 1;
    let parent = kin::ancestors(pid).ok().and_then(|above| above.first().copied());
    match parent.filter(|parent| parent.get() != FIRST) {
        Some(parent) => format!("{}, started by process {}", describe(pid), describe(parent)),
        None => describe(pid),
    }
}

/// The same of one that is to end, and who may keep it from that.
pub(in crate::daemon) fn describe_with_tracer(pid: Pid) -> String {
    let traced = process::tracer_of(pid).map(|tracer| {
        format!(
            ", which cannot end before process {}, which traces it, lets it go",
            describe(tracer)
        )
    });
    describe(pid) + &traced.unwrap_or_default()
}

/// The name of a service whose server nobody has named: its program and its first port.
///
/// # Errors
///
/// When no name comes of it.
pub(in crate::daemon) fn name_of(root: Pid, port: u16) -> Result<ServiceName, IdentifyError> {
    let command = process::command_line(root).unwrap_or_default();
    let program =
        command.first().map(|it| it.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    let program = program
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let clean: String = program
        .chars()
        .filter(|it| it.is_ascii_alphanumeric() || "-_.".contains(*it))
        .take(40)
        .collect();
    let clean = clean.trim_start_matches(['.', '-']).trim_end_matches(['.', '-']);
    let base = if clean.is_empty() { "server" } else { clean };
    Ok(format!("{base}-{port}").parse::<ServiceName>()?)
}

/// The listeners as the kernel maps need them, each for the public port that it serves.
pub(in crate::daemon) fn to_adopt(
    listeners: &[Listener],
    public: impl Fn(&Listener) -> u16,
) -> Vec<ListenerToAdopt> {
    listeners
        .iter()
        .map(|listener| ListenerToAdopt {
            cookie: listener.cookie.0,
            port: public(listener),
            address: address_of(listener),
            share: !listener.multipath,
            multipath: listener.multipath,
        })
        .collect()
}

/// The listeners as they are written down.
pub(in crate::daemon) fn records(
    listeners: &[Listener],
    public: impl Fn(&Listener) -> u16,
) -> Vec<ListenerRecord> {
    let record = |listener: &Listener| ListenerRecord {
        cookie: listener.cookie.0,
        bound: (listener.address, listener.port).into(),
        public: Some(public(listener)).filter(|public| *public != listener.port),
    };
    listeners.iter().map(record).collect()
}

/// How these listeners hold the public ports.
pub(in crate::daemon) fn hold(
    listeners: &[Listener],
    public: impl Fn(&Listener) -> u16,
) -> PortHold {
    if listeners.iter().any(|listener| listener.multipath) {
        PortHold::Plain
    } else if listeners.iter().any(|listener| listener.port != public(listener)) {
        PortHold::Moved
    } else {
        PortHold::Shared
    }
}

/// Endpoints, one for each address and port that is listened on.
pub(in crate::daemon) fn endpoints(listeners: &[Listener]) -> Vec<Endpoint> {
    let mut places: Vec<_> =
        listeners.iter().map(|listener| (listener.port, address_of(listener))).collect();
    places.sort_unstable();
    places.dedup();
    places
        .into_iter()
        .zip(0..)
        .map(|((port, address), number)| Endpoint { number, port, address, since: None })
        .collect()
}

/// What a listener is bound to.
pub(in crate::daemon) fn address_of(listener: &Listener) -> LocalAddress {
    LocalAddress::of(listener.address, listener.v6only)
}

/// The first endpoint that these listeners leave without one.
pub(in crate::daemon) fn uncovered<'a>(
    endpoints: &'a [Endpoint],
    listeners: &[ListenerToAdopt],
) -> Option<&'a Endpoint> {
    endpoints.iter().find(|endpoint| {
        let on_port = listeners.iter().filter(|listener| listener.port == endpoint.port);
        let addresses: Vec<_> = on_port.map(|listener| listener.address).collect();
        !LocalAddress::cover(&addresses, endpoint.address)
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt as _, process::Command};

    use super::*;

    #[test]
    fn what_a_process_calls_itself_is_one_line() {
        let mut child = Command::new("sleep").arg0("it\nerror: state damaged").arg("60").spawn();
        let child = child.as_mut().unwrap();
        let pid = Pid::new(child.id().cast_signed()).unwrap();
        // The kernel lets the parent go on before the new program has its arguments.
        while process::command_line(pid).unwrap().is_empty() {}
        let described = describe(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(described.contains("state damaged") && !described.contains('\n'), "{described}");
    }
}
