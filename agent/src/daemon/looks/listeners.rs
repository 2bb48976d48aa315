//! Which listeners of a service are open. The kernel is asked for its ports only: anybody may have 100,000 listeners on others.

use std::collections::HashSet;

use agent_terms::{GenerationId, ServiceId};

use crate::{
    daemon::{agent::Agent, world_error::WorldError},
    host::sock_diag::{self, Listener},
};

impl Agent {
    /// All listeners on the ports where a service's clients connect to, and where its generations listen.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(in crate::daemon) fn listeners_of(
        &self,
        id: ServiceId,
    ) -> Result<Vec<Listener>, WorldError> {
        Ok(sock_diag::listeners_at(&self.listened_ports(id))?)
    }

    /// The same of several services, each of which finds its own by [`Self::are_of`]: one look at the sockets, whose table the
    /// kernel walks as a whole for each.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(in crate::daemon) fn listeners_of_all(
        &self,
        ids: &[ServiceId],
    ) -> Result<Vec<Listener>, WorldError> {
        let ports: Vec<_> = ids.iter().flat_map(|id| self.listened_ports(*id)).collect();
        Ok(sock_diag::listeners_at(&ports)?)
    }

    /// Those of these listeners that are on a service's ports.
    pub(in crate::daemon) fn are_of(&self, id: ServiceId, all: &[Listener]) -> Vec<Listener> {
        let ports: HashSet<_> = self.listened_ports(id).into_iter().collect();
        all.iter().filter(|it| ports.contains(&it.port)).cloned().collect()
    }

    /// The cookies of all listeners on the ports of all services.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(in crate::daemon) fn live_listeners(&self) -> Result<HashSet<u64>, WorldError> {
        let all: Vec<_> = self.records.keys().copied().collect();
        Ok(self.listeners_of_all(&all)?.into_iter().map(|it| it.cookie.0).collect())
    }

    fn listened_ports(&self, id: ServiceId) -> Vec<u16> {
        let generations = self.record(id).service.generations();
        let bound = generations.iter().flat_map(|it| it.listeners()).map(|it| it.bound.port());
        self.ports_of(id).into_iter().chain(bound).collect()
    }

    /// Whether one of its listeners is open.
    pub(in crate::daemon) fn listens(&self, generation: GenerationId) -> Result<bool, WorldError> {
        let Some(known) = self.generation(generation) else { return Ok(false) };
        let open = self.listeners_of(generation.service)?;
        let is_open = |cookie| open.iter().any(|it| it.cookie.0 == cookie);
        Ok(known.listeners().iter().any(|it| is_open(it.cookie)))
    }
}
