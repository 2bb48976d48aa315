//! Finds out who serves: what was decided may have been overtaken by a death, or by somebody else's server.

use std::collections::HashSet;

use super::{agent::Agent, found};
use crate::{
    api::{Problem, Serving, Stranger},
    host::{
        holders, process,
        sock_diag::{self, Listener},
    },
    rollout::Generation,
    service::ServiceId,
};

impl Agent {
    /// Who gets the new connections of a service.
    ///
    /// # Errors
    ///
    /// When the listeners or who holds them cannot be listed.
    pub(super) fn serving(&self, id: ServiceId) -> Result<Serving, Problem> {
        let all = sock_diag::listeners()?;
        let service = &self.record(id).service;
        let listens = |it: &&Generation| {
            it.listeners.iter().any(|known| all.iter().any(|open| open.cookie.0 == known.cookie))
        };
        // As steering tries them.
        let standbys = service.generations.iter().rev().filter(|it| it.can_serve());
        let in_order = service.primary().into_iter().chain(standbys);
        if let Some(generation) = in_order.into_iter().find(listens) {
            return Ok(Serving::Generation { number: generation.number });
        }
        let serves = |it: &&Listener| {
            let address = found::address_of(it);
            let endpoints = &service.endpoints;
            endpoints.iter().any(|at| at.port == it.port && address.serves(at.address))
        };
        let inodes: HashSet<_> = all.iter().filter(serves).map(|it| it.inode).collect();
        if inodes.is_empty() {
            return Ok(Serving::Nobody);
        }
        let processes = holders::holders(&inodes)?.found.into_iter().map(|holder| holder.pid);
        let pids: Vec<_> = processes.collect();
        // Who started it speaks for its workers.
        let processes = holders::roots(&pids)?
            .into_iter()
            .map(|pid| Stranger { pid: pid.get(), command: command_of(pid) });
        Ok(Serving::Strangers { processes: processes.collect() })
    }
}

fn command_of(pid: process::Pid) -> String {
    let words = process::command_line(pid).unwrap_or_default();
    let words: Vec<_> = words.iter().map(|word| word.as_os_str().to_string_lossy()).collect();
    words.join(" ")
}
