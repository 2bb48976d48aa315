//! Whether the maps have what the state says.
//!
//! An agent that is killed may leave less in the maps than in its state, or more: the state is written first, but for
//! listeners. That is made up for when it is resumed. Here it is asked for what no agent leaves out at any time: where that is
//! missing, somebody has taken it away, and connections went elsewhere, or were not counted, since nobody knows when.

use agent_rollout::{Generation, Origin, Phase, PortHold, Service};
use agent_terms::{GenerationId, GenerationNumber};

use crate::datapath::Contents;

/// The first thing that is missing, by the map that should have it.
pub(super) fn missing<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    contents: &Contents,
) -> Option<String> {
    services.into_iter().find_map(|service| {
        let without = |map: &str| Some(format!("`{map}` has nothing of {}", service.name()));
        if !contents.endpoints.contains(&service.id()) && !service.endpoints().is_empty() {
            return without("ENDPOINTS");
        }
        let primary = contents.primaries.get(&service.id());
        if primary.is_none() && service.targets().is_some() {
            return without("SERVICES");
        }
        service.generations().iter().find_map(|generation| {
            let id = GenerationId { service: service.id(), number: generation.number() };
            let map = missing_of(id, generation, primary.copied(), contents)?;
            let number = generation.number();
            Some(format!("`{map}` has nothing of generation {number} of {}", service.name()))
        })
    })
}

fn missing_of(
    id: GenerationId,
    generation: &Generation,
    steered_to: Option<GenerationNumber>,
    contents: &Contents,
) -> Option<&'static str> {
    let serves = generation.can_serve() && !generation.is_deaf();
    if serves && !generation.listeners().is_empty() && !contents.listener_sets.contains(&id) {
        return Some("LISTENER_SETS");
    }
    // Counters are made just before steering names a generation, which may be after the state calls it the primary.
    let was_steered_to = generation.can_serve() && *generation.phase() != Phase::Primary;
    if (was_steered_to || steered_to == Some(id.number)) && !contents.flows.contains(&id) {
        return Some("FLOWS");
    }
    // The rule is made before the process.
    let is_launched = matches!(generation.origin(), Origin::Launched { .. });
    let runs = generation.can_serve() && generation.hold() != PortHold::Plain;
    (is_launched && runs && !contents.bind_rules.contains(&id)).then_some("BIND_RULES")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use agent_rollout::{DrainPlan, ListenerRecord, Listening, Timestamp};
    use agent_terms::{Endpoint, LocalAddress, ServiceId};

    use super::*;

    const SERVICE: ServiceId = ServiceId(1);

    const fn id(number: u32) -> GenerationId {
        GenerationId { service: SERVICE, number: GenerationNumber(number) }
    }

    fn generation(number: u32, phase: Phase) -> Generation {
        let origin = Origin::Launched {
            program: None,
            command: vec![],
            cgroup: "/c".into(),
            log: "/l".into(),
        };
        let bound = "0.0.0.0:80".parse().unwrap();
        let listening = Listening {
            hold: PortHold::Shared,
            listeners: vec![ListenerRecord { cookie: number.into(), bound, public: None }],
        };
        Generation::new(GenerationNumber(number), phase, origin, Timestamp(0))
            .found(listening, Vec::new())
    }

    /// Generation 1 drains, generation 2 serves, and all of it is in the maps.
    fn upgraded() -> (Service, Contents) {
        let address = LocalAddress::DualStack;
        let endpoints = vec![Endpoint { number: 0, port: 80, address, since: None }];
        let primary = generation(2, Phase::Primary);
        let until = Timestamp::default().after(Duration::from_secs(1));
        let drain = DrainPlan::default();
        let draining = Phase::Draining { deadline: until, keep_until: until, drain };
        let both = vec![generation(1, draining), primary];
        let name = "web".parse().unwrap();
        let service = Service::derived(SERVICE, name, endpoints, both, Vec::new());
        let both = [id(1), id(2)];
        let contents = Contents {
            endpoints: [SERVICE].into(),
            primaries: [(SERVICE, GenerationNumber(2))].into(),
            listener_sets: both.into(),
            flows: both.into(),
            bind_rules: both.into(),
        };
        (service, contents)
    }

    #[test]
    fn whatever_an_agent_never_leaves_out_is_missed() {
        let (service, contents) = upgraded();
        assert_eq!(missing([&service], &contents), None);
        let without = |change: fn(&mut Contents)| {
            let mut contents = contents.clone();
            change(&mut contents);
            missing([&service], &contents).unwrap_or_default()
        };
        assert!(without(|it| it.endpoints.clear()).contains("ENDPOINTS"));
        assert!(without(|it| it.primaries.clear()).contains("SERVICES"));
        for number in [1, 2] {
            let mut contents = contents.clone();
            contents.listener_sets.remove(&id(number));
            let what = missing([&service], &contents).unwrap();
            assert_eq!(what, format!("`LISTENER_SETS` has nothing of generation {number} of web"));
        }
        assert!(without(|it| it.flows.clear()).contains("FLOWS"));
        assert!(without(|it| it.bind_rules.clear()).contains("BIND_RULES"));
    }

    #[test]
    fn what_a_killed_agent_has_not_done_yet_is_not_missed() {
        let (service, mut contents) = upgraded();
        // The state says that it is the primary, steering does not yet.
        contents.primaries.insert(SERVICE, GenerationNumber(1));
        contents.flows.remove(&id(2));
        assert_eq!(missing([&service], &contents), None);
        // Another service's detach was not finished.
        contents.endpoints.insert(ServiceId(7));
        assert_eq!(missing([&service], &contents), None);
    }
}
