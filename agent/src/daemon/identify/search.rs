//! Looks for a server that somebody has named, on the thread that asks: it may have thousands of processes, each of which is
//! looked at, and may keep whoever does so waiting. The agent itself is asked only when it is found.

use agent_api::{AttachRequest, Command, NewGeneration, Problem, ProblemKind};
use agent_terms::LocalAddress;

use super::{
    asked::Asked,
    found::{self, Found},
    who,
};
use crate::host::{
    context,
    process::{Pid, ProcessError},
    sock_diag,
};

/// Who looks, and from where.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) struct Search {
    pub(in crate::daemon) asked: Asked,
    /// The network namespace that the agent serves.
    pub(in crate::daemon) network_namespace: u64,
}

/// What the next generation comes from.
pub(in crate::daemon) enum Source {
    /// It is to be launched.
    Launch(Box<Command>),
    /// It runs, if it was found.
    Found(Result<Found, Problem>),
}

impl Search {
    /// The next generation, as far as it is there already.
    pub(in crate::daemon) fn source(self, new: &NewGeneration) -> Source {
        match new {
            NewGeneration::Launch(command) => Source::Launch(command.clone()),
            NewGeneration::Process(pid) => Source::Found(self.server_with(*pid)),
            NewGeneration::Listening(port) => Source::Found(self.server_on(*port)),
        }
    }

    /// The server that is to be attached.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not certain who it is, or it cannot be steered to.
    pub(in crate::daemon) fn server(self, request: &AttachRequest) -> Result<Found, Problem> {
        let mut listeners = Vec::new();
        let all = sock_diag::listeners()?;
        for port in &request.ports {
            let on_port: Vec<_> = all
                .iter()
                .filter(|listener| listener.port == *port)
                .filter(|listener| {
                    request
                        .address
                        .is_none_or(|wanted| found::address_of(listener).contains(wanted))
                })
                .cloned()
                .collect();
            if on_port.is_empty() {
                return Err(nothing_listens(*port, request)?);
            }
            listeners.extend(on_port);
        }
        if let Some(bound) = listeners.iter().find(|listener| listener.interface != 0) {
            return Err(Problem::new(
                ProblemKind::Preflight,
                format!(
                    "the listener on port {} is bound to one network interface, which steering cannot honour",
                    bound.port
                ),
            ));
        }
        let server = who::server_of(listeners, request.pid, self.asked)?;
        self.refuse_other_namespace(&server)?;
        Ok(server)
    }

    /// The sockets are of our namespace by construction; a process with a foreign one would be launched into it.
    fn refuse_other_namespace(self, server: &Found) -> Result<(), Problem> {
        let root = server.root()?;
        let theirs = context::network_namespace_of(root)
            .map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
        if theirs == self.network_namespace {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::Preflight,
            format!(
                "process {} holds the listener but lives in another network namespace",
                found::describe(root)
            ),
        )
        .fix("run the agent in that namespace, with its own --runtime-dir, --pin-dir and --cgroup"))
    }

    /// The server that this process is of.
    fn server_with(self, pid: i32) -> Result<Found, Problem> {
        let no_process = || {
            Problem::new(ProblemKind::Preflight, format!("there is no process {pid}"))
                .fix("`ss -ltnp` says which processes listen")
        };
        let process = Pid::new(pid).ok_or_else(no_process)?;
        let theirs = context::network_namespace_of(process).map_err(|error| match error {
            ProcessError::Gone { .. } => no_process(),
            error => Problem::caused(ProblemKind::Preflight, &error),
        })?;
        if theirs != self.network_namespace {
            return Err(Problem::new(
                ProblemKind::Preflight,
                format!("process {pid} is in another network namespace than this agent"),
            )
            .fix(
                "run an agent of its own there, with its own --runtime-dir, --pin-dir and --cgroup",
            ));
        }
        let theirs = who::on_ports_of(sock_diag::listeners()?, process)?;
        if theirs.is_empty() {
            return Err(Problem::new(
                ProblemKind::Preflight,
                format!(
                    "process {pid} is no server: neither it nor a child of it has a TCP listener"
                ),
            )
            .fix(
                "start the new version first, and name its process (`ss -ltnp` lists who listens)",
            ));
        }
        who::server_of(theirs, Some(pid), self.asked)
    }

    /// The server that listens on this port.
    fn server_on(self, port: u16) -> Result<Found, Problem> {
        let listeners = sock_diag::listeners_on(port)?;
        if listeners.is_empty() {
            return Err(Problem::new(
                ProblemKind::Preflight,
                format!("nothing listens on port {port}"),
            )
            .fix(
                "start the new version first, on a port of its own; `ss -ltnp` says who listens",
            ));
        }
        who::server_of(listeners, None, self.asked)
    }
}

fn nothing_listens(port: u16, request: &AttachRequest) -> Result<Problem, Problem> {
    let message = match request.address {
        Some(address) => format!("nothing listens on port {port} of {address}"),
        None => format!("nothing listens on port {port}"),
    };
    let mut all = sock_diag::listeners()?;
    all.sort_by_key(|listener| listener.port.abs_diff(port));
    let place = |it: &sock_diag::Listener| {
        format!("{}:{}", LocalAddress::of(it.address, it.v6only), it.port)
    };
    let mut near: Vec<_> = all.iter().map(place).collect();
    near.dedup();
    near.truncate(5);
    let fix = match near.is_empty() {
        true => "nothing listens in this network namespace: start the server first".to_owned(),
        false => format!("start the server first; these listen: {}", near.join(", ")),
    };
    Ok(Problem::new(ProblemKind::Preflight, message).fix(fix))
}
