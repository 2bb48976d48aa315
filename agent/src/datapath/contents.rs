//! What the maps know about whom, to be compared with what they should.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use agent_ebpf::{
    bind::BindRule,
    endpoint::{Endpoint as EndpointValue, EndpointKey},
    flow::{FlowCounts, GenerationKey},
    steering::{ListenerSet, ListenerSetKey, Steering},
};
use agent_terms::{GenerationId, GenerationNumber, ServiceId};
use aya::maps::Map;

use super::{DatapathError, survey::Maps};

/// Of whom the maps have something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Services with an endpoint.
    pub endpoints: BTreeSet<ServiceId>,
    /// Services with steering, and the primary that it names.
    pub primaries: BTreeMap<ServiceId, GenerationNumber>,
    /// Generations with listeners for some endpoint.
    pub listener_sets: BTreeSet<GenerationId>,
    /// Generations with counters.
    pub flows: BTreeSet<GenerationId>,
    /// Generations with a rule for their binds.
    pub bind_rules: BTreeSet<GenerationId>,
}

impl Contents {
    /// Reads what is pinned below `pin_dir`, all of which is there.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn of(pin_dir: &Path) -> Result<Self, DatapathError> {
        let maps = Maps::below(pin_dir)?;
        let endpoints = maps.entries::<EndpointKey, EndpointValue>("ENDPOINTS", Map::HashMap)?;
        let steering = maps.entries::<u32, Steering>("SERVICES", Map::HashMap)?;
        let sets = maps.entries::<ListenerSetKey, ListenerSet>("LISTENER_SETS", Map::HashMap)?;
        let flows = maps.entries::<GenerationKey, FlowCounts>("FLOWS", Map::HashMap)?;
        let rules = maps.entries::<GenerationKey, BindRule>("BIND_RULES", Map::HashMap)?;
        let of_set = |key: ListenerSetKey| generation(key.service, key.generation);
        let of_key = |key: GenerationKey| generation(key.service, key.generation);
        Ok(Self {
            endpoints: endpoints.into_values().map(|value| ServiceId(value.service)).collect(),
            primaries: steering
                .into_iter()
                .map(|(service, it)| (ServiceId(service), GenerationNumber(it.primary)))
                .collect(),
            listener_sets: sets.into_keys().map(of_set).collect(),
            flows: flows.into_keys().map(of_key).collect(),
            bind_rules: rules.into_keys().map(of_key).collect(),
        })
    }
}

const fn generation(service: u32, number: u32) -> GenerationId {
    GenerationId { service: ServiceId(service), number: GenerationNumber(number) }
}
