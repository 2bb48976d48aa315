//! What `ENDPOINTS` should hold.

use std::collections::BTreeMap;

use agent_ebpf::endpoint::{Endpoint as EndpointValue, EndpointKey, NO_SERVICE, SEVERAL};
use agent_terms::{Endpoint, LocalAddress, ServiceId};

/// The entries for all services: one per address, plus the "any" of its port and family, which the kernel asks first.
pub(super) fn entries<'a>(
    services: impl IntoIterator<Item = (ServiceId, &'a [Endpoint])>,
) -> BTreeMap<EndpointKey, EndpointValue> {
    let mut entries = BTreeMap::new();
    for (service, endpoints) in services {
        for endpoint in endpoints {
            for key in endpoint.address.keys(endpoint.port) {
                let value =
                    EndpointValue { service: service.0, endpoint: endpoint.number, specific: 0 };
                entries.insert(key, value);
            }
        }
    }
    let exact = entries.iter().filter(|(key, _)| **key != key.any());
    let exact: Vec<_> = exact.map(|(key, value)| (key.any(), value.service)).collect();
    for (any, service) in exact {
        let nobody = EndpointValue { service: NO_SERVICE, endpoint: 0, specific: 0 };
        let specific = &mut entries.entry(any).or_insert(nobody).specific;
        *specific = if [0, service].contains(specific) { service } else { SEVERAL };
    }
    entries
}

/// The way back: which services these entries are of.
pub(super) fn services(
    entries: &BTreeMap<EndpointKey, EndpointValue>,
) -> BTreeMap<ServiceId, Vec<Endpoint>> {
    let mut keys: BTreeMap<(ServiceId, u32), Vec<EndpointKey>> = BTreeMap::new();
    for (key, value) in entries.iter().filter(|(_, value)| value.service != NO_SERVICE) {
        keys.entry((ServiceId(value.service), value.endpoint)).or_default().push(*key);
    }
    let mut services: BTreeMap<ServiceId, Vec<Endpoint>> = BTreeMap::new();
    for ((service, number), keys) in keys {
        if let Some((address, port)) = LocalAddress::from_keys(&keys) {
            services.entry(service).or_default().push(Endpoint {
                number,
                port,
                address,
                since: None,
            });
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn endpoint(number: u32, port: u16, address: LocalAddress) -> Endpoint {
        Endpoint { number, port, address, since: None }
    }

    #[test]
    fn an_exact_address_is_announced_by_its_any() {
        let endpoints = [endpoint(0, 80, LocalAddress::Ipv4(Ipv4Addr::LOCALHOST))];
        let entries = entries([(ServiceId(1), &endpoints[..])]);
        assert_eq!(entries.len(), 2);
        let any = entries[&LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED).keys(80)[0]];
        assert_eq!((any.service, any.specific), (NO_SERVICE, 1));
    }

    #[test]
    fn any_and_exact_of_two_services_stand_side_by_side() {
        let any = [endpoint(0, 80, LocalAddress::DualStack)];
        let exact = [endpoint(0, 80, LocalAddress::Ipv4(Ipv4Addr::LOCALHOST))];
        let entries = entries([(ServiceId(1), &any[..]), (ServiceId(2), &exact[..])]);
        assert_eq!(entries.len(), 3);
        let value = |address: LocalAddress| entries[&address.keys(80)[0]];
        assert_eq!(value(LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED)).service, 1);
        assert_eq!(value(LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED)).specific, 2);
        assert_eq!(value(LocalAddress::Ipv4(Ipv4Addr::LOCALHOST)).service, 2);
        assert_eq!(value(LocalAddress::DualStack).specific, 0);
    }

    #[test]
    fn the_any_address_tells_whose_exact_ones_are() {
        let one = [endpoint(0, 80, LocalAddress::Ipv4(Ipv4Addr::LOCALHOST))];
        let other = [endpoint(0, 80, LocalAddress::Ipv4(Ipv4Addr::new(10, 0, 0, 1)))];
        let any = |services: &[(ServiceId, &[Endpoint])]| {
            entries(services.iter().copied())
                [&LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED).keys(80)[0]]
        };
        let alone = any(&[(ServiceId(1), &one)]);
        assert!(alone.is_met_by(1) && !alone.is_met_by(2));
        let both = any(&[(ServiceId(1), &one), (ServiceId(2), &other)]);
        assert!(both.is_met_by(1) && both.is_met_by(2));
    }

    #[test]
    fn the_way_back_leads_to_the_same_services() {
        let mixed = [
            endpoint(0, 80, LocalAddress::DualStack),
            endpoint(1, 80, LocalAddress::Ipv6(Ipv6Addr::LOCALHOST)),
            endpoint(2, 443, LocalAddress::Ipv6(Ipv6Addr::UNSPECIFIED)),
        ];
        let exact = [endpoint(0, 443, LocalAddress::Ipv4(Ipv4Addr::LOCALHOST))];
        let found = services(&entries([(ServiceId(1), &mixed[..]), (ServiceId(2), &exact[..])]));
        assert_eq!(found[&ServiceId(1)], mixed);
        assert_eq!(found[&ServiceId(2)], exact);
        assert_eq!(found.len(), 2);
    }
}
