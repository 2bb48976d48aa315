//! The way of a connection by what is in the maps now, step by step as `steer` goes it.

use std::net::{IpAddr, SocketAddr};

use agent_ebpf::{
    endpoint::{EndpointKey, NO_SERVICE},
    steering::{ListenerSetKey, MAX_RANKS, NO_GENERATION, PLAIN, Steering, mix},
};
use agent_terms::{GenerationNumber, LocalAddress, ServiceId};

use super::{Datapath, DatapathError};

/// Where a connection goes that comes to one of our endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The service that the endpoint is of.
    pub service: ServiceId,
    /// The endpoint's number within it.
    pub endpoint: u32,
    /// Who is tried, in this order.
    pub tries: Vec<Try>,
}

/// A generation that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// Which one.
    pub generation: GenerationNumber,
    /// How.
    pub reach: Reach,
}

/// How a generation is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By so many places for its listeners. Whether one is taken, the kernel does not show (`sock_map_lookup_sys`).
    Places(u32),
    /// By the kernel's own lookup.
    Plain,
    /// It has no listener for the endpoint.
    Nothing,
}

impl Datapath {
    /// The way of a connection to `local`, if that is ours; from any client where none is given.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn way(
        &self,
        local: SocketAddr,
        client: Option<IpAddr>,
    ) -> Result<Option<Way>, DatapathError> {
        let Some((service, endpoint)) = self.endpoint_at(local)? else { return Ok(None) };
        let Some(steering) = self.steering(service)? else {
            return Ok(Some(Way { service, endpoint, tries: Vec::new() }));
        };
        let mut tries = Vec::new();
        for number in in_order(&steering, client.map_or(0, hash)) {
            let key = ListenerSetKey { service: service.0, generation: number, endpoint };
            let reach = match self.listener_sets.get(key)? {
                None => Reach::Nothing,
                Some(set) if set.count == PLAIN => Reach::Plain,
                Some(set) => Reach::Places(set.count),
            };
            tries.push(Try { generation: GenerationNumber(number), reach });
        }
        Ok(Some(Way { service, endpoint, tries }))
    }

    /// As `Connection::endpoint` of the programs: the exact address counts where the entry of any says that there is one.
    fn endpoint_at(&self, local: SocketAddr) -> Result<Option<(ServiceId, u32)>, DatapathError> {
        let read = |key: EndpointKey| self.endpoints.get(key);
        let address = LocalAddress::of(local.ip().to_canonical(), true);
        let Some(key) = address.keys(local.port()).first().copied() else { return Ok(None) };
        let Some(any) = read(key.any())? else { return Ok(None) };
        let exact = if any.specific != 0 { read(key)? } else { None };
        let found = exact.or_else(|| (any.service != NO_SERVICE).then_some(any));
        Ok(found.map(|it| (ServiceId(it.service), it.endpoint)))
    }
}

/// Each generation at its first rank.
fn in_order(steering: &Steering, client: u32) -> Vec<u32> {
    let ranks = (0..MAX_RANKS).map(|rank| steering.choice(rank, client));
    ranks.filter(|number| *number != NO_GENERATION).collect()
}

/// As `Connection::ipv4` and `ipv6` of the programs.
fn hash(client: IpAddr) -> u32 {
    match client.to_canonical() {
        IpAddr::V4(address) => u32::from_ne_bytes(address.octets()),
        IpAddr::V6(address) => {
            let words = address.octets();
            let words = words.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word));
            words.reduce(mix).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_ebpf::steering::{FULL_SHARE, MAX_STANDBYS};

    use super::*;

    #[test]
    fn a_candidate_with_the_whole_share_is_tried_first() {
        let mut standbys = [NO_GENERATION; MAX_STANDBYS];
        standbys[0] = 7;
        let steering = Steering { primary: 8, standbys, ..Steering::default() };
        assert_eq!(in_order(&steering, 0), [8, 7]);
        let shared = Steering { candidate: 9, share: FULL_SHARE, ..steering };
        assert_eq!(in_order(&shared, 0), [9, 8, 7]);
    }

    #[test]
    fn a_client_is_the_same_in_either_form_of_its_address() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(hash(address("192.0.2.1")), hash(address("::ffff:192.0.2.1")));
        assert_ne!(hash(address("2001:db8::1")), hash(address("2001:db8::2")));
    }
}
