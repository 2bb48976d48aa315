//! Where clients connect to: protocol, port and local address.

/// IP protocol number of TCP, as the kernel's lookup reports it.
pub const TCP: u8 = 6;

/// Key of `ENDPOINTS`. IPv4 addresses are written IPv4-mapped (`::ffff:a.b.c.d`), so that "any" exists once per family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// Network byte order, four words as the kernel hands them to a lookup program.
    pub address: [u32; 4],
    /// Host byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero: hash keys are compared byte by byte.
    pub zero: u8,
}

/// The second-to-last word of an IPv4-mapped address, in network byte order.
pub const MAPPED: u32 = u32::from_be(0xffff);

impl EndpointKey {
    /// The key of one IPv4 address (network byte order; zero means any).
    #[inline(always)]
    pub const fn ipv4(protocol: u8, address: u32, port: u16) -> Self {
        Self { address: [0, 0, MAPPED, address], port, protocol, zero: 0 }
    }

    /// The key of one IPv6 address (network byte order; all zero means any).
    #[inline(always)]
    pub const fn ipv6(protocol: u8, address: [u32; 4], port: u16) -> Self {
        Self { address, port, protocol, zero: 0 }
    }

    /// The same port and family with the address that means "any".
    #[inline(always)]
    #[must_use]
    pub const fn any(self) -> Self {
        let family = if self.is_ipv4() { [0, 0, MAPPED, 0] } else { [0; 4] };
        Self { address: family, ..self }
    }

    /// Whether this is an IPv4 address written as an IPv6 one.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.address[0] == 0 && self.address[1] == 0 && self.address[2] == MAPPED
    }
}

/// Value of `ENDPOINTS`.
///
/// The "any" key of a family and port exists whenever one of its addresses is an endpoint, so that a port which is not
/// ours costs one lookup. `specific` says whether a second one, for the exact address, is worth making.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The service, or [`NO_SERVICE`] where only exact addresses of this port are endpoints.
    pub service: u32,
    /// Number of the endpoint within its service.
    pub endpoint: u32,
    /// Not zero if exact addresses of this port and family are endpoints too: the service of which they are, or [`SEVERAL`].
    pub specific: u32,
}

/// Exact addresses of more than one service.
pub const SEVERAL: u32 = u32::MAX;

impl Endpoint {
    /// Whether a service has this address, or, where it means "any", an exact one of its port and family.
    #[inline(always)]
    pub const fn is_met_by(&self, service: u32) -> bool {
        self.service == service || self.specific == service || self.specific == SEVERAL
    }
}

/// Service numbers start at 1.
pub const NO_SERVICE: u32 = 0;

const _: () = assert!(size_of::<EndpointKey>() == 20);
const _: () = assert!(size_of::<Endpoint>() == 12);
