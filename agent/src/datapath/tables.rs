//! The tables that the programs go by: which ports are ours, and which generation gets their connections.

use std::collections::{BTreeMap, BTreeSet};

use agent_ebpf::{
    bind::BindRule,
    flow::{FlowCounts, GenerationKey},
    steering::{ListenerSet, ListenerSetKey, NO_GENERATION, PLAIN, Steering},
};
use agent_terms::{Endpoint, GenerationId, GenerationNumber, ServiceId};

use super::{
    AdoptedListener, Datapath, DatapathError, ListenerToAdopt, endpoints, listeners, slots,
};

impl Datapath {
    /// Makes exactly the endpoints of these services ours: adds, changes and removes what differs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a change; those before it stay made.
    pub fn set_endpoints<'a>(
        &mut self,
        services: impl IntoIterator<Item = (ServiceId, &'a [Endpoint])>,
    ) -> Result<(), DatapathError> {
        let wanted = endpoints::entries(services);
        let present = self.endpoints.all()?;
        for (key, value) in &wanted {
            if present.get(key) != Some(value) {
                self.endpoints.put(*key, *value)?;
            }
        }
        for key in present.keys().filter(|key| !wanted.contains_key(key)) {
            self.endpoints.remove(*key)?;
        }
        Ok(())
    }

    /// Switches a service: from the next packet on, on every CPU and all its ports at once.
    ///
    /// What the primary gets is counted from now on, and not before: probes of a candidate are no flows of anybody's.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; steering is then as it was.
    pub fn steer(&mut self, service: ServiceId, steering: &Steering) -> Result<(), DatapathError> {
        let number = GenerationNumber(steering.primary);
        self.count_flows_of(GenerationId { service, number })?;
        self.write_steering(service, *steering)
    }

    /// Says which connections are probes, and of which generation.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; nothing has changed then.
    pub fn set_probe(
        &mut self,
        service: ServiceId,
        probe: Option<(GenerationNumber, u16)>,
    ) -> Result<(), DatapathError> {
        let Some(steering) = self.steering(service)? else { return Ok(()) };
        let (probe_generation, probe_port) =
            probe.map_or((NO_GENERATION, 0), |(number, port)| (number.0, u32::from(port)));
        if (steering.probe_generation, steering.probe_port) == (probe_generation, probe_port) {
            return Ok(());
        }
        self.put_steering(service, Steering { probe_generation, probe_port, ..steering })
    }

    /// Where a service's new connections go, if it has any steering.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn steering(&self, service: ServiceId) -> Result<Option<Steering>, DatapathError> {
        self.services.get(service.0)
    }

    /// Takes over a generation's listeners: tags them, shares their ports if `share`, puts each into the socket map, and
    /// makes them the generation's set for each endpoint they serve.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a step. What was done stays, and steers nothing until [`Self::steer`].
    pub fn adopt_listeners(
        &mut self,
        generation: GenerationId,
        endpoints: &[Endpoint],
        listeners: &[ListenerToAdopt],
    ) -> Result<Vec<AdoptedListener>, DatapathError> {
        self.withdraw_primary_sets(generation.key())?;
        let mut adopted = Vec::new();
        // Read once: of a service with a thousand ports it takes thousands of system calls.
        let mut used = self.sets()?;
        for endpoint in endpoints {
            let serving = listeners::serving(endpoint, listeners);
            let key = listener_set_key(generation, endpoint);
            keep_to_share(&used, key, serving.len())?;
            let first = slots::free_range(used.values(), serving.len() as u32)
                .ok_or(DatapathError::SocketMapFull { wanted: serving.len() })?;
            let placed = self.place_listeners(generation, first, &serving)?;
            let count = if placed.iter().all(|it| it.in_map) { placed.len() as u32 } else { PLAIN };
            let set = ListenerSet { first, count };
            self.listener_sets.put(key, set)?;
            used.insert(key, set);
            adopted.extend(placed);
        }
        self.renew_primary_sets(generation.key())?;
        Ok(adopted)
    }

    /// The generations of a service of which any map knows anything.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn generations(
        &self,
        service: ServiceId,
    ) -> Result<BTreeSet<GenerationNumber>, DatapathError> {
        let sets = self.listener_sets.keys()?.into_iter().map(generation_of);
        let members = self.members.all()?.into_iter().map(|(_, member)| member.generation);
        let known = sets.chain(members).chain(self.flows.keys()?).chain(self.bind_rules.keys()?);
        let of_service = known.filter(|it| it.service == service.0);
        Ok(of_service.map(|it| GenerationNumber(it.generation)).collect())
    }

    /// Forgets a generation: its sets, its counters, its bind rule. Its sockets keep working.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub fn forget(
        &mut self,
        generation: GenerationId,
        endpoints: &[Endpoint],
    ) -> Result<(), DatapathError> {
        self.forget_sets(generation, endpoints)?;
        self.flows.remove(generation.key())?;
        self.bind_rules.remove(generation.key())?;
        self.dismiss_all(generation.key())
    }

    /// Forgets which listeners of a generation serve these endpoints.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub fn forget_sets(
        &mut self,
        generation: GenerationId,
        endpoints: &[Endpoint],
    ) -> Result<(), DatapathError> {
        self.withdraw_primary_sets(generation.key())?;
        for endpoint in endpoints {
            self.listener_sets.remove(listener_set_key(generation, endpoint))?;
        }
        self.renew_primary_sets(generation.key())
    }

    /// Forgets whatever the maps have of generations that are not among these: an agent may have ended before it did.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub fn keep_only(&mut self, living: &BTreeSet<GenerationKey>) -> Result<(), DatapathError> {
        let lives = |key: &GenerationKey| living.contains(key);
        let sets = self.listener_sets.keys()?;
        for key in sets.into_iter().filter(|key| !lives(&generation_of(*key))) {
            self.withdraw_primary_sets(generation_of(key))?;
            self.listener_sets.remove(key)?;
        }
        for key in self.flows.keys()?.into_iter().filter(|key| !lives(key)) {
            self.flows.remove(key)?;
        }
        for service in self.services.keys()? {
            if !living.iter().any(|key| key.service == service) {
                self.forget_service(ServiceId(service))?;
            }
        }
        for key in self.bind_rules.keys()?.into_iter().filter(|key| !lives(key)) {
            self.bind_rules.remove(key)?;
        }
        let members = self.members.all()?;
        let strangers: BTreeSet<_> = members.iter().map(|(_, member)| member.generation).collect();
        for key in strangers.iter().filter(|key| !lives(key)) {
            self.dismiss_all(*key)?;
        }
        Ok(())
    }

    /// Forgets a service: from the next packet on its ports are the kernel's alone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub fn forget_service(&mut self, service: ServiceId) -> Result<(), DatapathError> {
        self.services.remove(service.0)?;
        self.forget_members(service)?;
        self.kernel.reset_counts(&mut self.steered, service)
    }

    /// Says what binds of the service's ports by this generation meet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_bind_rule(
        &mut self,
        generation: GenerationId,
        rule: BindRule,
    ) -> Result<(), DatapathError> {
        self.bind_rules.put(generation.key(), rule)
    }

    /// What was said so, if anything was.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn bind_rule(&self, generation: GenerationId) -> Result<Option<BindRule>, DatapathError> {
        self.bind_rules.get(generation.key())
    }

    /// Gives a generation counters, unless it has some: nothing is counted without.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn count_flows_of(&mut self, generation: GenerationId) -> Result<(), DatapathError> {
        if self.flows.get(generation.key())?.is_none() {
            self.flows.put(generation.key(), FlowCounts::default())?;
        }
        Ok(())
    }

    pub(super) fn sets(&self) -> Result<BTreeMap<ListenerSetKey, ListenerSet>, DatapathError> {
        self.listener_sets.all()
    }

    /// The public port that a listener asked for, if its bind was moved to another one.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn moved_from(&self, cookie: u64) -> Result<Option<u16>, DatapathError> {
        let port = self.moved_binds.get(cookie)?;
        Ok(port.and_then(|port| u16::try_from(port).ok()))
    }
}

/// Refuses what would leave the other services no room.
fn keep_to_share(
    used: &BTreeMap<ListenerSetKey, ListenerSet>,
    replaced: ListenerSetKey,
    wanted: usize,
) -> Result<(), DatapathError> {
    let of = |is_ours: bool| {
        let sets = used.iter().filter(|(key, _)| (key.service == replaced.service) == is_ours);
        sets.filter(|(key, _)| **key != replaced).map(|(_, set)| set.count).sum::<u32>()
    };
    let (ours, share) = (of(true) as usize, slots::share(of(false)) as usize);
    match ours + wanted <= share {
        true => Ok(()),
        false => Err(DatapathError::ShareFull { wanted: ours + wanted, share }),
    }
}

/// Whose a set is.
const fn generation_of(set: ListenerSetKey) -> GenerationKey {
    GenerationKey { service: set.service, generation: set.generation }
}

pub(super) const fn listener_set_key(
    generation: GenerationId,
    endpoint: &Endpoint,
) -> ListenerSetKey {
    ListenerSetKey {
        service: generation.service.0,
        generation: generation.number.0,
        endpoint: endpoint.number,
    }
}
