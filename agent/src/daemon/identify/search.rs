//! Looks for a server that somebody has named, on the thread that asks: it may have thousands of processes, each of which is
//! looked at, and may keep whoever does so waiting. The agent itself is asked only when it is found.

use std::net::IpAddr;

use agent_api::{AttachRequest, Command, NewGeneration};

use super::{
    asked::Asked,
    error::IdentifyError,
    found::{self, Found},
    who,
};
use crate::host::{
    context,
    process::{Pid, ProcessError},
    sock_diag::{self, SockDiagError},
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
    Found(Result<Found, IdentifyError>),
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
    pub(in crate::daemon) fn server(self, request: &AttachRequest) -> Result<Found, IdentifyError> {
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
                return Err(nothing_listens(*port, request.address)?);
            }
            listeners.extend(on_port);
        }
        if let Some(bound) = listeners.iter().find(|listener| listener.interface != 0) {
            return Err(IdentifyError::BoundToInterface { port: bound.port });
        }
        let server = who::server_of(listeners, request.pid, self.asked)?;
        self.refuse_other_namespace(&server)?;
        Ok(server)
    }

    /// The sockets are of our namespace by construction; a process with a foreign one would be launched into it.
    fn refuse_other_namespace(self, server: &Found) -> Result<(), IdentifyError> {
        let root = server.root()?;
        if context::network_namespace_of(root)? == self.network_namespace {
            return Ok(());
        }
        Err(IdentifyError::LivesElsewhere { process: found::describe(root) })
    }

    /// The server that this process is of.
    fn server_with(self, pid: i32) -> Result<Found, IdentifyError> {
        let no_process = || IdentifyError::NoProcess { pid, servers: Vec::new() };
        let process = Pid::new(pid).ok_or_else(no_process)?;
        let theirs = context::network_namespace_of(process).map_err(|error| match error {
            ProcessError::Gone { .. } => no_process(),
            error => IdentifyError::Unseen(error),
        })?;
        if theirs != self.network_namespace {
            return Err(IdentifyError::NamedElsewhere { pid });
        }
        let (theirs, refused) = who::on_ports_of(sock_diag::listeners()?, process)?;
        match (theirs.is_empty(), refused) {
            (true, 0) => return Err(IdentifyError::NoServer { pid }),
            (true, _) => return Err(IdentifyError::NotSeenToListen { pid, refused }),
            (false, _) => {}
        }
        who::server_of(theirs, Some(pid), self.asked)
    }

    /// The server that listens on this port.
    fn server_on(self, port: u16) -> Result<Found, IdentifyError> {
        let listeners = sock_diag::listeners_on(port)?;
        if listeners.is_empty() {
            return Err(IdentifyError::NothingNewListens { port });
        }
        who::server_of(listeners, None, self.asked)
    }
}

fn nothing_listens(port: u16, address: Option<IpAddr>) -> Result<IdentifyError, SockDiagError> {
    let mut all = sock_diag::listeners()?;
    all.sort_by_key(|listener| listener.port.abs_diff(port));
    let mut near: Vec<_> = all.iter().map(|it| (found::address_of(it), it.port)).collect();
    near.dedup();
    near.truncate(5);
    Ok(IdentifyError::NothingListens { port, address, near })
}
