//! What `ENDPOINTS` should hold.

use std::collections::BTreeMap;

use agent_ebpf::endpoint::{Endpoint as EndpointValue, EndpointKey, NO_SERVICE};

use crate::service::{Endpoint, ServiceId};

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
    let exact: Vec<_> = entries.keys().filter(|key| **key != key.any()).copied().collect();
    for key in exact {
        let nobody = EndpointValue { service: NO_SERVICE, endpoint: 0, specific: 0 };
        entries.entry(key.any()).or_insert(nobody).specific = 1;
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::service::LocalAddress;

    fn endpoint(number: u32, port: u16, address: LocalAddress) -> Endpoint {
        Endpoint { number, port, address }
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
        assert_eq!(value(LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED)).specific, 1);
        assert_eq!(value(LocalAddress::Ipv4(Ipv4Addr::LOCALHOST)).service, 2);
        assert_eq!(value(LocalAddress::DualStack).specific, 0);
    }
}
