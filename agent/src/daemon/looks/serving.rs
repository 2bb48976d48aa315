//! Finds out who serves: what was decided may have been overtaken by a death, or by somebody else's server.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use agent_api::{Serving, Stranger, Waiting};
use agent_rollout::Generation;
use agent_terms::{GenerationId, GenerationNumber, ServiceId};

use crate::{
    daemon::{agent::Agent, identify::found, looks::observe::owner, world_error::WorldError},
    host::{
        holders, kin, process,
        sock_diag::{Listener, SocketInode, Stage},
    },
};

impl Agent {
    /// Who gets the new connections of a service.
    ///
    /// # Errors
    ///
    /// When the listeners or who holds them cannot be listed.
    pub(in crate::daemon) fn serving(&self, id: ServiceId) -> Result<Serving, WorldError> {
        self.serving_by(id, &self.listeners_of(id)?)
    }

    /// The same, by the listeners on its ports.
    ///
    /// # Errors
    ///
    /// As [`Self::serving`].
    pub(in crate::daemon) fn serving_by(
        &self,
        id: ServiceId,
        all: &[Listener],
    ) -> Result<Serving, WorldError> {
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
        self.beside_by(id, self.listeners_of(id)?)
    }

    /// The same, by the listeners on its ports.
    ///
    /// # Errors
    ///
    /// As [`Self::beside`].
    pub(in crate::daemon) fn beside_by(
        &self,
        id: ServiceId,
        all: Vec<Listener>,
    ) -> Result<Vec<Stranger>, WorldError> {
        let listeners = self.strange_of(id, all)?;
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

    /// Connections that primaries of these services have not accepted for longer than a server may take for that, by the
    /// listeners on their ports.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be listed.
    pub(in crate::daemon) fn waiting(
        &self,
        ids: &[ServiceId],
        all: &[Listener],
    ) -> Result<HashMap<ServiceId, Waiting>, WorldError> {
        let queued: HashSet<_> =
            all.iter().filter(|it| it.accept_queue > 0).map(|it| it.cookie.0).collect();
        let primaries =
            ids.iter().filter_map(|id| Some((*id, self.record(*id).service.primary()?)));
        let slow: Vec<_> = primaries
            .filter(|(_, it)| it.listeners().iter().any(|at| queued.contains(&at.cookie)))
            .map(|(id, primary)| GenerationId { service: id, number: primary.number() })
            .collect();
        if slow.is_empty() {
            return Ok(HashMap::new());
        }
        let flows = self.flows_of_all(&slow.iter().map(|it| it.service).collect::<Vec<_>>())?;
        let mut waiting: HashMap<ServiceId, Waiting> = HashMap::new();
        for flow in flows.iter().filter(|it| it.stage() == Stage::Queued) {
            let owner = owner(flow).and_then(|it| slow.iter().find(|key| key.key() == it));
            let (Some(key), Some(idle)) = (owner, flow.idle) else { continue };
            if idle >= TOO_LONG {
                let none = Waiting { connections: 0, longest: Duration::ZERO };
                let so_far = waiting.entry(key.service).or_insert(none);
                so_far.connections += 1;
                so_far.longest = so_far.longest.max(idle);
            }
        }
        Ok(waiting)
    }
}

/// For which a connection may wait to be accepted, while nothing is wrong.
const TOO_LONG: Duration = Duration::from_secs(3);

fn command_of(pid: process::Pid) -> String {
    let words = process::command_line(pid).unwrap_or_default();
    let words: Vec<_> = words.iter().map(|word| word.as_os_str().to_string_lossy()).collect();
    words.join(" ")
}
