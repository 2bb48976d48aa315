//! Addresses that a service takes up because its primary serves them too, and gives up for one that does not.
//!
//! A new version may listen on another family, or on all addresses where the one before had a single one. Left to the kernel's
//! own lookup, connections to those would go to whichever generation the kernel likes, also to one that drains.

use std::collections::{BTreeSet, HashSet};

use agent_api::EventKind;
use agent_ebpf::endpoint::EndpointKey;
use agent_rollout::{Event, Phase};
use agent_terms::{Endpoint, GenerationId, LocalAddress, ServiceId};

use crate::{
    daemon::{
        agent::Agent,
        identify::found,
        state::state_file::Record,
        step::{Step, take},
        world_error::WorldError,
    },
    datapath::ListenerToAdopt,
    host::sock_diag::{self, Listener},
};

impl Agent {
    /// Has the endpoints of a service be what its primary serves: those that came after it go, those that it has beyond come.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub(in crate::daemon) fn look_for_endpoints(
        &mut self,
        primary: GenerationId,
    ) -> Result<(), WorldError> {
        let known = self.generation(primary);
        if known.is_none_or(|known| *known.phase() != Phase::Primary) {
            return Ok(());
        }
        self.give_up_endpoints(primary)?;
        let all = sock_diag::listeners()?;
        let service = &self.record(primary.service).service;
        let known: HashSet<_> = service
            .generations()
            .iter()
            .flat_map(|it| {
                it.listeners().iter().map(move |listener| (listener.cookie, it.number()))
            })
            .collect();
        let is_own = |it: &&Listener| known.contains(&(it.cookie.0, primary.number));
        let own: Vec<_> = all.iter().filter(is_own).cloned().collect();
        let strangers: Vec<_> = all
            .into_iter()
            .filter(|it| !known.iter().any(|(cookie, _)| *cookie == it.cookie.0))
            .collect();
        let offer = self.offer_of(primary, &own)?;
        let beyond = self.endpoints_beyond(primary, &offer.to_adopt, &strangers);
        self.take_up(primary, &offer.to_adopt, &beyond)
    }

    fn endpoints_beyond(
        &self,
        primary: GenerationId,
        listeners: &[ListenerToAdopt],
        strangers: &[Listener],
    ) -> Vec<Endpoint> {
        let endpoints = self.record(primary.service).service.endpoints();
        let others = self.records.iter().filter(|(id, _)| **id != primary.service);
        let others = others.flat_map(|(_, record)| record.service.endpoints());
        let others = others.flat_map(|it| it.address.keys(it.port)).collect();
        let mut beyond = beyond(endpoints, &others, listeners);
        beyond.retain(|endpoint| {
            let in_the_way = |it: &&Listener| {
                it.port == endpoint.port && found::address_of(it).overlaps(endpoint.address)
            };
            let stranger = strangers.iter().find(in_the_way);
            if let Some(stranger) = stranger {
                tracing::info!(%endpoint, cookie = stranger.cookie.0, "not taken up: somebody else listens there");
            }
            stranger.is_none()
        });
        for endpoint in &mut beyond {
            endpoint.since = Some(primary.number);
        }
        beyond
    }

    /// In the order of an attach: what the kernel finds for an endpoint is there before it asks, and the state comes last. An
    /// agent that ends before that leaves endpoints that the next one does not know: it removes them, and looks again.
    fn take_up(
        &mut self,
        primary: GenerationId,
        listeners: &[ListenerToAdopt],
        beyond: &[Endpoint],
    ) -> Result<(), WorldError> {
        if beyond.is_empty() {
            return Ok(());
        }
        let id = primary.service;
        let all = [self.record(id).service.endpoints(), beyond].concat();
        take(Step::TakeOverListeners, || {
            Ok(self.datapath.adopt_listeners(primary, &all, listeners)?)
        })?;
        self.replace_endpoints(id, all)?;
        self.guard_queues(id);
        self.tell_of_endpoints(primary, "takes up", beyond);
        self.attribute_newcomers(id)
    }

    /// Steering leads to one that does not serve them: they are the kernel's again, as before they were taken up.
    fn give_up_endpoints(&mut self, primary: GenerationId) -> Result<(), WorldError> {
        let id = primary.service;
        let endpoints = self.record(id).service.endpoints().to_vec();
        let (kept, given_up): (Vec<_>, Vec<_>) =
            endpoints.into_iter().partition(|it| it.is_of(primary.number));
        if given_up.is_empty() {
            return Ok(());
        }
        self.replace_endpoints(id, kept)?;
        let generations = self.record(id).service.generations().to_vec();
        // The next endpoint may get one of these numbers.
        for generation in generations {
            let key = GenerationId { service: id, number: generation.number() };
            take(Step::ForgetGeneration, || Ok(self.datapath.forget_sets(key, &given_up)?))?;
        }
        self.tell_of_endpoints(primary, "does not serve, and leaves to the kernel,", &given_up);
        Ok(())
    }

    /// In the kernel maps first: an agent that ends before it is written down leaves endpoints that the next one does not know.
    fn replace_endpoints(&mut self, id: ServiceId, new: Vec<Endpoint>) -> Result<(), WorldError> {
        let of = |(other, record): (&ServiceId, &Record)| match *other == id {
            true => (*other, new.clone()),
            false => (*other, record.service.endpoints().to_vec()),
        };
        let all: Vec<_> = self.records.iter().map(of).collect();
        take(Step::SetEndpoints, || {
            Ok(self.datapath.set_endpoints(all.iter().map(|(id, of)| (*id, &of[..])))?)
        })?;
        self.feed(id, Event::EndpointsChanged(new))
    }

    fn tell_of_endpoints(&mut self, generation: GenerationId, how: &str, endpoints: &[Endpoint]) {
        let places: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        let message = format!("generation {} {how} {}", generation.number, places.join(", "));
        self.note(generation, EventKind::EndpointsChanged, message);
    }
}

/// The addresses of these listeners that no endpoint has yet, as endpoints that are numbered on. None that another service
/// has, and none within an endpoint that has all addresses of the family.
fn beyond(
    endpoints: &[Endpoint],
    others: &BTreeSet<EndpointKey>,
    listeners: &[ListenerToAdopt],
) -> Vec<Endpoint> {
    let mut taken: BTreeSet<_> = endpoints.iter().flat_map(|it| it.address.keys(it.port)).collect();
    let next = endpoints.iter().map(|it| it.number + 1).max().unwrap_or_default();
    let mut found = Vec::new();
    let mut places: Vec<_> = listeners.iter().map(|it| it.address.keys(it.port)).collect();
    // What has all addresses comes first: it leaves nothing to the others.
    places.sort_by_key(|keys| keys.iter().any(|key| *key != key.any()));
    for keys in places {
        let is_new = |key: &EndpointKey| {
            !taken.contains(key) && !taken.contains(&key.any()) && !others.contains(key)
        };
        let new: Vec<_> = keys.into_iter().filter(is_new).collect();
        if let Some((address, port)) = LocalAddress::from_keys(&new) {
            let number = next + found.len() as u32;
            found.push(Endpoint { number, port, address, since: None });
            taken.extend(new);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const ANY4: LocalAddress = LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED);
    const ANY6: LocalAddress = LocalAddress::Ipv6(Ipv6Addr::UNSPECIFIED);
    const LOOPBACK4: LocalAddress = LocalAddress::Ipv4(Ipv4Addr::LOCALHOST);

    fn endpoint(number: u32, address: LocalAddress) -> Endpoint {
        Endpoint { number, port: 80, address, since: None }
    }

    fn found(had: LocalAddress, listens: &[LocalAddress]) -> Vec<Endpoint> {
        let listener = |address: &LocalAddress| ListenerToAdopt {
            cookie: 1,
            port: 80,
            address: *address,
            share: true,
            multipath: false,
        };
        let listeners: Vec<_> = listens.iter().map(listener).collect();
        beyond(&[endpoint(4, had)], &BTreeSet::new(), &listeners)
    }

    #[test]
    fn another_family_and_all_addresses_are_beyond() {
        assert_eq!(found(ANY4, &[LocalAddress::DualStack]), [endpoint(5, ANY6)]);
        assert_eq!(found(ANY4, &[ANY4, ANY6]), [endpoint(5, ANY6)]);
        assert_eq!(found(LOOPBACK4, &[ANY4]), [endpoint(5, ANY4)]);
        let both = found(LOOPBACK4, &[LocalAddress::DualStack]);
        assert_eq!(both, [endpoint(5, LocalAddress::DualStack)]);
    }

    #[test]
    fn what_an_endpoint_has_is_not() {
        assert_eq!(found(ANY4, &[ANY4, LOOPBACK4]), []);
        assert_eq!(found(LocalAddress::DualStack, &[ANY4, ANY6, LOOPBACK4]), []);
        assert_eq!(found(LOOPBACK4, &[LOOPBACK4, ANY4]), [endpoint(5, ANY4)]);
    }

    #[test]
    fn what_another_service_has_stays_its() {
        let listener = ListenerToAdopt {
            cookie: 1,
            port: 80,
            address: LocalAddress::DualStack,
            share: true,
            multipath: false,
        };
        let others = ANY6.keys(80).into_iter().collect();
        assert_eq!(beyond(&[endpoint(0, LOOPBACK4)], &others, &[listener]), [endpoint(1, ANY4)]);
    }
}
