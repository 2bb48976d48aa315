//! Finds out who serves: what was decided may have been overtaken by a death, or by somebody else's server.

use std::{collections::HashSet, time::Duration};

use agent_api::{Serving, Stranger, Waiting};
use agent_rollout::Generation;
use agent_terms::{GenerationId, GenerationNumber, ServiceId};

use crate::{
    daemon::{agent::Agent, identify::found, world_error::WorldError},
    host::{
        holders, kin, process,
        sock_diag::{Listener, SocketInode},
    },
};

impl Agent {
    /// Who gets the new connections of a service.
    ///
    /// # Errors
    ///
    /// When the listeners or who holds them cannot be listed.
    pub(in crate::daemon) fn serving(&self, id: ServiceId) -> Result<Serving, WorldError> {
        let all = self.listeners_of(id)?;
        let service = &self.record(id).service;
        let listens = |it: &&Generation| {
            it.listeners().iter().any(|known| all.iter().any(|open| open.cookie.0 == known.cookie))
        };
        // As steering tries them: what was decided may not have reached the kernel yet.
        let standbys = service.generations().iter().rev().filter(|it| it.can_serve());
        let steered = self.datapath.steering(id)?;
        let first = steered.and_then(|it| service.generation(GenerationNumber(it.primary)));
        let in_order = first.or_else(|| service.primary()).into_iter().chain(standbys);
        if let Some(generation) = in_order.into_iter().find(listens) {
            return Ok(Serving::Generation { number: generation.number() });
        }
        let serves = |it: &&Listener| {
            let address = found::address_of(it);
            let endpoints = service.endpoints();
            endpoints.iter().any(|at| at.port == it.port && address.serves(at.address))
        };
        // One that is being ended serves nobody, whether its listener is closed already or not.
        let known = service.known_listeners();
        let is_strange = |it: &&Listener| serves(it) && !known.contains(&it.cookie.0);
        let inodes: HashSet<_> = all.iter().filter(is_strange).map(|it| it.inode).collect();
        if inodes.is_empty() {
            return Ok(Serving::Nobody);
        }
        Ok(Serving::Strangers { processes: self.strangers(id, &inodes)? })
    }

    /// Who listens beside a service's generations.
    ///
    /// # Errors
    ///
    /// When the listeners or who holds them cannot be listed.
    pub(in crate::daemon) fn beside(&self, id: ServiceId) -> Result<Vec<Stranger>, WorldError> {
        let listeners = self.strange_listeners(id)?;
        let inodes: HashSet<_> = listeners.iter().map(|it| it.inode).collect();
        if inodes.is_empty() { Ok(Vec::new()) } else { self.strangers(id, &inodes) }
    }

    /// Who holds these listeners: whoever started it speaks for its workers.
    fn strangers(
        &self,
        id: ServiceId,
        inodes: &HashSet<SocketInode>,
    ) -> Result<Vec<Stranger>, WorldError> {
        let holders = holders::holders(inodes)?.found;
        let pids: Vec<_> = holders.into_iter().map(|holder| holder.pid).collect();
        let described = |pid: process::Pid| Stranger {
            pid: pid.get(),
            command: command_of(pid),
            other_user: self.user_unlike(id, pid),
        };
        Ok(holders::roots(&pids)?.into_iter().map(described).collect())
    }

    /// The user of a process, where that is another one than the service's server had. One that has ended has none.
    pub(in crate::daemon) fn user_unlike(&self, id: ServiceId, pid: process::Pid) -> Option<u32> {
        let record = self.record(id);
        let usual = record.mark.as_ref().map_or(record.context.uid, |mark| mark.user);
        kin::user_of(pid).ok().filter(|user| *user != usual)
    }

    /// Connections that the primary has not accepted for longer than a server may take for that.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be listed.
    pub(in crate::daemon) fn waiting(&self, id: ServiceId) -> Result<Option<Waiting>, WorldError> {
        let Some(primary) = self.record(id).service.primary() else { return Ok(None) };
        let key = GenerationId { service: id, number: primary.number() };
        let is_of_it =
            |it: &Listener| primary.listeners().iter().any(|at| at.cookie == it.cookie.0);
        if !self.listeners_of(id)?.iter().any(|it| it.accept_queue > 0 && is_of_it(it)) {
            return Ok(None);
        }
        let mut too_long: Vec<_> =
            self.not_accepted(key)?.into_iter().filter_map(|flow| flow.idle).collect();
        too_long.retain(|idle| *idle >= TOO_LONG);
        Ok(too_long.iter().max().map(|longest| Waiting {
            connections: too_long.len() as u64,
            longest_seconds: longest.as_secs_f64(),
        }))
    }
}

/// For which a connection may wait to be accepted, while nothing is wrong.
const TOO_LONG: Duration = Duration::from_secs(3);

fn command_of(pid: process::Pid) -> String {
    let words = process::command_line(pid).unwrap_or_default();
    let words: Vec<_> = words.iter().map(|word| word.as_os_str().to_string_lossy()).collect();
    words.join(" ")
}
