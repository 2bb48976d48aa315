//! Finds servers that run: their listeners, and the processes that hold them.

use std::collections::HashSet;

use crate::{
    api::{Problem, ProblemKind},
    datapath::ListenerToAdopt,
    host::{
        holders::{self, Holder},
        process::{self, Pid, Process, ProcessIdentity},
        sock_diag::{self, Listener},
    },
    rollout::{ListenerRecord, PortHold},
    service::{Endpoint, LocalAddress, ServiceName},
};

/// A server that runs: listeners that belong together.
pub(super) struct Found {
    pub(super) listeners: Vec<Listener>,
    pub(super) processes: Vec<ProcessIdentity>,
}

impl Found {
    /// The process that was there first: its user, directory and environment are what the next generation gets.
    pub(super) fn root(&self) -> Result<Pid, Problem> {
        let pids: Vec<_> = self.processes.iter().map(|process| process.pid).collect();
        let first = holders::roots(&pids)?.first().copied().or_else(|| pids.first().copied());
        first.ok_or_else(|| Problem::new(ProblemKind::Failed, "the server has no process"))
    }
}

/// The server that has these listeners.
///
/// # Errors
///
/// When no process or several unrelated ones hold them; `pid` decides between the latter.
pub(super) fn server_of(listeners: Vec<Listener>, pid: Option<i32>) -> Result<Found, Problem> {
    let inodes: HashSet<_> = listeners.iter().map(|listener| listener.inode).collect();
    let holders = holders::holders(&inodes)?;
    if holders.found.is_empty() {
        return Err(nobody_holds(&listeners, holders.refused));
    }
    let groups = holders::related(&holders.found)?;
    let group = choose(&groups, pid)?;
    let held: HashSet<_> =
        holders.found.iter().filter(|it| group.contains(&it.pid)).flat_map(of_holder).collect();
    let processes =
        group.iter().filter_map(|pid| Process::open(*pid).ok()).map(|it| it.identity()).collect();
    let listeners =
        listeners.into_iter().filter(|listener| held.contains(&listener.inode)).collect();
    Ok(Found { listeners, processes })
}

fn of_holder(holder: &Holder) -> impl Iterator<Item = sock_diag::SocketInode> {
    holder.inodes.iter().copied()
}

fn choose(groups: &[Vec<Pid>], pid: Option<i32>) -> Result<Vec<Pid>, Problem> {
    match (groups, pid) {
        (_, Some(wanted)) => groups
            .iter()
            .find(|group| group.iter().any(|pid| pid.get() == wanted))
            .cloned()
            .ok_or_else(|| {
                Problem::new(
                    ProblemKind::Preflight,
                    format!("process {wanted} does not hold a listener on the port"),
                )
                .fix(format!("these do: {}", described(groups)))
            }),
        ([group], None) => Ok(group.clone()),
        (_, None) => Err(Problem::new(
            ProblemKind::Preflight,
            format!("{} unrelated servers hold the port: {}", groups.len(), described(groups)),
        )
        .fix("say which one with `--pid`")),
    }
}

fn described(groups: &[Vec<Pid>]) -> String {
    groups
        .iter()
        .filter_map(|group| group.first())
        .map(|pid| describe(*pid))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A process as people know it.
pub(super) fn describe(pid: Pid) -> String {
    let command = process::command_line(pid).unwrap_or_default();
    let command: Vec<_> = command.iter().map(|part| part.as_os_str().to_string_lossy()).collect();
    format!("{pid} ({})", command.join(" "))
}

/// The name of a service whose server nobody has named: its program and its first port.
///
/// # Errors
///
/// When no name comes of it.
pub(super) fn name_of(root: Pid, port: u16) -> Result<ServiceName, Problem> {
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
    format!("{base}-{port}").parse().map_err(|error| Problem::caused(ProblemKind::Failed, &error))
}

fn nobody_holds(listeners: &[Listener], refused: usize) -> Problem {
    let ports: Vec<_> = listeners.iter().map(|listener| listener.port.to_string()).collect();
    let problem = Problem::new(
        ProblemKind::Preflight,
        format!("no process holds the listener on port {}", ports.join(", ")),
    );
    if refused > 0 {
        problem.fix(format!("{refused} processes may not be looked at: run with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"))
    } else {
        problem.fix("its process is in another PID namespace: run the agent where it can be seen")
    }
}

/// The listeners as the kernel maps need them, each for the public port that it serves.
pub(super) fn to_adopt(
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
pub(super) fn records(
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
pub(super) fn hold(listeners: &[Listener], public: impl Fn(&Listener) -> u16) -> PortHold {
    if listeners.iter().any(|listener| listener.multipath) {
        PortHold::Plain
    } else if listeners.iter().any(|listener| listener.port != public(listener)) {
        PortHold::Moved
    } else {
        PortHold::Shared
    }
}

/// Endpoints, one for each address and port that is listened on.
pub(super) fn endpoints(listeners: &[Listener]) -> Vec<Endpoint> {
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
pub(super) fn address_of(listener: &Listener) -> LocalAddress {
    LocalAddress::of(listener.address, listener.v6only)
}

/// The first endpoint that these listeners leave without one.
pub(super) fn uncovered<'a>(
    endpoints: &'a [Endpoint],
    listeners: &[ListenerToAdopt],
) -> Option<&'a Endpoint> {
    endpoints.iter().find(|endpoint| {
        let on_port = listeners.iter().filter(|listener| listener.port == endpoint.port);
        let addresses: Vec<_> = on_port.map(|listener| listener.address).collect();
        !LocalAddress::cover(&addresses, endpoint.address)
    })
}
