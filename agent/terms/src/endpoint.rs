//! Where clients of a service connect to.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use agent_ebpf::endpoint::{EndpointKey, TCP};
use serde::{Deserialize, Serialize};

use super::GenerationNumber;

/// One TCP port on one local address, numbered within its service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Endpoint {
    /// Its number in the kernel maps; starts at 0.
    pub number: u32,
    /// The public port.
    pub port: u16,
    /// The local address.
    pub address: LocalAddress,
    /// The generation that was the first to serve it, where that was not the one that was attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<GenerationNumber>,
}

/// The local address of a listener, and with it the packets that the kernel can give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "String", try_from = "String")]
pub enum LocalAddress {
    /// An IPv4 address, or any of them (`0.0.0.0`).
    Ipv4(Ipv4Addr),
    /// An IPv6 address, or any of them with `IPV6_V6ONLY` set (`::`).
    Ipv6(Ipv6Addr),
    /// Any IPv6 address, and any IPv4 one too: `::` without `IPV6_V6ONLY`.
    DualStack,
}

/// The lowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    AnyOfBoth,
    Any,
    Exact,
}

impl LocalAddress {
    /// What a listener bound to this address is.
    pub fn of(address: IpAddr, only_ipv6: bool) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address),
            IpAddr::V6(address) if address.is_unspecified() && !only_ipv6 => Self::DualStack,
            IpAddr::V6(address) => Self::Ipv6(address),
        }
    }

    /// The kernel's keys for it: `DualStack` is "any" of both families.
    pub fn keys(self, port: u16) -> Vec<EndpointKey> {
        let ipv4 =
            |address: Ipv4Addr| EndpointKey::ipv4(TCP, u32::from_ne_bytes(address.octets()), port);
        let ipv6 = |address: Ipv6Addr| {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(address.octets().as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(*bytes);
            }
            EndpointKey::ipv6(TCP, words, port)
        };
        match self {
            Self::Ipv4(address) => vec![ipv4(address)],
            Self::Ipv6(address) => vec![ipv6(address)],
            Self::DualStack => vec![ipv6(Ipv6Addr::UNSPECIFIED), ipv4(Ipv4Addr::UNSPECIFIED)],
        }
    }

    /// The way back from [`Self::keys`], with the port; `None` for keys that no address has.
    pub fn from_keys(keys: &[EndpointKey]) -> Option<(Self, u16)> {
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let of = |key: &EndpointKey| -> Option<Self> {
            if key.is_ipv4() {
                return Some(Self::Ipv4(key.address[3].to_ne_bytes().into()));
            }
            let bytes: Vec<u8> = bytes(&key.address);
            Some(Self::Ipv6(<[u8; 16]>::try_from(bytes).ok()?.into()))
        };
        let port = keys.first()?.port;
        let mut addresses = keys.iter().map(of).collect::<Option<Vec<_>>>()?;
        addresses.sort_unstable();
        match addresses[..] {
            [address] => Some((address, port)),
            [Self::Ipv4(Ipv4Addr::UNSPECIFIED), Self::Ipv6(Ipv6Addr::UNSPECIFIED)] => {
                Some((Self::DualStack, port))
            }
            _ => None,
        }
    }

    /// Whether a listener on this address takes (part of) the connections to `endpoint`.
    ///
    /// # Kernel
    ///
    /// `bpf_sk_lookup_assign` gives an IPv4 packet to a dual-stack socket, but never an IPv6 packet to an IPv4 socket nor an
    /// IPv4 packet to an IPv6-only one. It compares no addresses; we do, so that a server that was told to listen on another
    /// address does not silently get this one's clients.
    pub fn serves(self, endpoint: Self) -> bool {
        match (self, endpoint) {
            (Self::DualStack, _) => true,
            (Self::Ipv4(mine), Self::Ipv4(wanted)) => mine == wanted || mine.is_unspecified(),
            (Self::Ipv6(mine), Self::Ipv6(wanted)) => mine == wanted || mine.is_unspecified(),
            (Self::Ipv4(mine), Self::DualStack) => mine.is_unspecified(),
            (Self::Ipv6(mine), Self::DualStack) => mine.is_unspecified(),
            (Self::Ipv4(_), Self::Ipv6(_)) | (Self::Ipv6(_), Self::Ipv4(_)) => false,
        }
    }

    /// Whether the kernel, when nobody steers, gives a listener on this address some connection to `endpoint` beside listeners on
    /// these.
    ///
    /// # Kernel
    ///
    /// A listener on the very address goes before one on any (`__inet_lookup_listener`, `inet6_lookup_listener`), and of those an
    /// IPv4 one goes before a dual-stack one (`compute_score`).
    pub fn competes(self, others: &[Self], endpoint: Self) -> bool {
        let any = [Self::Ipv4(Ipv4Addr::UNSPECIFIED), Self::Ipv6(Ipv6Addr::UNSPECIFIED)];
        let families = match &endpoint {
            Self::DualStack => &any[..],
            one => std::slice::from_ref(one),
        };
        families.iter().any(|family| {
            let best = others.iter().filter_map(|other| other.preference(*family)).max();
            self.preference(*family).is_some_and(|mine| Some(mine) >= best)
        })
    }

    /// What the kernel goes by when several listeners serve an address of one family.
    fn preference(self, family: Self) -> Option<Preference> {
        let preference = match (self, family) {
            (Self::DualStack, Self::Ipv4(_)) => Preference::AnyOfBoth,
            (Self::DualStack, _) => Preference::Any,
            (Self::Ipv4(mine), _) if mine.is_unspecified() => Preference::Any,
            (Self::Ipv6(mine), _) if mine.is_unspecified() => Preference::Any,
            (Self::Ipv4(_) | Self::Ipv6(_), _) => Preference::Exact,
        };
        self.serves(family).then_some(preference)
    }

    /// Whether listeners on these addresses together take every connection to `endpoint`.
    pub fn cover(listeners: &[Self], endpoint: Self) -> bool {
        match endpoint {
            Self::DualStack => {
                let serves =
                    |family: Self| listeners.iter().any(|listener| listener.serves(family));
                serves(Self::Ipv4(Ipv4Addr::UNSPECIFIED))
                    && serves(Self::Ipv6(Ipv6Addr::UNSPECIFIED))
            }
            Self::Ipv4(_) | Self::Ipv6(_) => {
                listeners.iter().any(|listener| listener.serves(endpoint))
            }
        }
    }

    /// An address to connect to that reaches this one from the same host.
    pub fn reachable(self) -> IpAddr {
        match self {
            Self::Ipv4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            Self::Ipv4(address) => address.into(),
            Self::Ipv6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            Self::Ipv6(address) => address.into(),
            Self::DualStack => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Whether some connection could come in through either.
    pub fn overlaps(self, other: Self) -> bool {
        self.serves(other) || other.serves(self)
    }

    /// One address of each family that this one takes connections of, as [`Self::reachable`].
    pub fn reachable_by_family(self) -> Vec<IpAddr> {
        match self {
            Self::DualStack => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Self::Ipv4(_) | Self::Ipv6(_) => vec![self.reachable()],
        }
    }

    /// Whether a connection with this local address came in through here.
    pub fn contains(self, local: IpAddr) -> bool {
        match (self, local.to_canonical()) {
            (Self::DualStack, _) => true,
            (Self::Ipv4(mine), IpAddr::V4(local)) => mine.is_unspecified() || mine == local,
            (Self::Ipv6(mine), IpAddr::V6(local)) => mine.is_unspecified() || mine == local,
            (Self::Ipv4(_), IpAddr::V6(_)) | (Self::Ipv6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Ipv6(address) => write!(f, "[{address}]"),
            Self::DualStack => f.write_str("*"),
        }
    }
}

impl From<LocalAddress> for String {
    fn from(address: LocalAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for LocalAddress {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "*" {
            return Ok(Self::DualStack);
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        bare.parse().map(|address| Self::of(address, true))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

impl Endpoint {
    /// Whether a generation has to serve it: those before the one that brought it need not.
    pub fn is_of(&self, generation: GenerationNumber) -> bool {
        self.since.is_none_or(|since| generation >= since)
    }

    /// Whether a connection to this local address and port came in through this endpoint.
    pub fn contains(&self, local: SocketAddr) -> bool {
        self.port == local.port() && self.address.contains(local.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY4: LocalAddress = LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED);
    const ANY6: LocalAddress = LocalAddress::Ipv6(Ipv6Addr::UNSPECIFIED);
    const LOOPBACK4: LocalAddress = LocalAddress::Ipv4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_narrower_listener_does_not_cover_a_wider_endpoint() {
        assert!(!LocalAddress::cover(&[LOOPBACK4], ANY4));
        assert!(LocalAddress::cover(&[ANY4], LOOPBACK4));
        assert!(!LocalAddress::cover(&[ANY4], LocalAddress::DualStack));
        assert!(LocalAddress::cover(&[ANY4, ANY6], LocalAddress::DualStack));
        assert!(LocalAddress::cover(&[LocalAddress::DualStack], ANY4));
        assert!(!LocalAddress::cover(&[], ANY4));
    }

    #[test]
    fn whoever_the_kernel_passes_over_does_not_compete() {
        assert!(!LocalAddress::DualStack.competes(&[ANY4], ANY4));
        assert!(LocalAddress::DualStack.competes(&[ANY4], LocalAddress::DualStack), "for IPv6");
        assert!(LocalAddress::DualStack.competes(&[LocalAddress::DualStack], ANY4));
        assert!(LocalAddress::DualStack.competes(&[], ANY4));
        assert!(LocalAddress::DualStack.competes(&[ANY6], ANY6));
        assert!(ANY4.competes(&[LocalAddress::DualStack], ANY4));
        assert!(ANY4.competes(&[ANY4], ANY4));
        assert!(!ANY4.competes(&[LOOPBACK4], LOOPBACK4));
        assert!(LOOPBACK4.competes(&[ANY4], LOOPBACK4));
        assert!(!ANY6.competes(&[ANY4], ANY4));
    }

    #[test]
    fn addresses_survive_being_written_down() {
        for address in [
            ANY4,
            ANY6,
            LOOPBACK4,
            LocalAddress::DualStack,
            LocalAddress::Ipv6(Ipv6Addr::LOCALHOST),
        ] {
            assert_eq!(LocalAddress::try_from(String::from(address)), Ok(address));
        }
    }

    #[test]
    fn dual_stack_has_a_key_in_each_family() {
        let keys = LocalAddress::DualStack.keys(80);
        assert_eq!(keys.len(), 2);
        assert!(keys.iter().all(|key| key.any() == *key));
        assert_eq!(keys.iter().filter(|key| key.is_ipv4()).count(), 1);
    }
}
