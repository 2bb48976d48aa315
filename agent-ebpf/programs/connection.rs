//! From a connection to the listeners that may take it: the walk that `steer` and `migrate` share.

use core::ffi::c_void;

use agent_ebpf::{
    endpoint::{Endpoint, EndpointKey, NO_SERVICE},
    flow::GenerationKey,
    steering::{
        ListenerSet, ListenerSetKey, MAX_RANKS, MAX_TRIES, NO_GENERATION, PLAIN, SteerCounts, mix,
    },
};
use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_loop};

use crate::maps::{ENDPOINTS, LISTENER_SETS, SERVICES, STEERED};

/// What the decision needs to know of a connection.
pub(crate) struct Connection {
    local: EndpointKey,
    /// Hash of the client's address: the same for all its connections.
    client: u32,
    /// Hash of address and port: spreads connections over the listeners of one generation.
    spread: u32,
    remote_port: u16,
    /// Whether both ends have the same address.
    same_address: bool,
}

/// Who takes a connection.
pub(crate) enum Taker {
    /// The generation that steering means.
    Meant(GenerationKey),
    /// Another one, because no listener of the one that steering means (given here) was left.
    Fallback { meant: GenerationKey, taker: GenerationKey },
    /// One that only the kernel's own lookup reaches.
    Plain,
    /// The candidate: it is a probe.
    Candidate,
    /// Nobody may: it is a probe, and the candidate has no listener for it.
    Refused,
    /// Nobody that we know.
    Nobody,
}

impl Connection {
    /// Addresses in network byte order, ports in host byte order.
    #[inline(always)]
    pub(crate) fn ipv4(protocol: u8, local: (u32, u16), remote: (u32, u16)) -> Self {
        let client = remote.0;
        Self {
            local: EndpointKey::ipv4(protocol, local.0, local.1),
            client,
            spread: mix(client, u32::from(remote.1)),
            remote_port: remote.1,
            same_address: local.0 == remote.0,
        }
    }

    /// As [`Self::ipv4`]; an IPv4-mapped address is the IPv4 one.
    #[inline(always)]
    pub(crate) fn ipv6(protocol: u8, local: ([u32; 4], u16), remote: ([u32; 4], u16)) -> Self {
        let same_address = local.0 == remote.0;
        let local = EndpointKey::ipv6(protocol, local.0, local.1);
        let address = remote.0;
        let client = if local.is_ipv4() {
            address[3]
        } else {
            mix(mix(mix(address[0], address[1]), address[2]), address[3])
        };
        let spread = mix(client, u32::from(remote.1));
        Self { local, client, spread, remote_port: remote.1, same_address }
    }

    /// The endpoint that the client connected to, if it is ours.
    #[inline(always)]
    pub(crate) fn endpoint(&self) -> Option<&'static Endpoint> {
        // SAFETY: the element may be replaced meanwhile, but RCU keeps the memory that we look at until the program ends.
        let any = unsafe { ENDPOINTS.get(self.local.any()) }?;
        if any.specific != 0 {
            // SAFETY: as above.
            if let Some(exact) = unsafe { ENDPOINTS.get(self.local) } {
                return Some(exact);
            }
        }
        (any.service != NO_SERVICE).then_some(any)
    }

    /// Offers the connection to one listener's slot after the other until `take` succeeds: those of the generation that
    /// steering means first. A closed listener has left the map by itself (`sock_map_unhash`).
    #[inline(always)]
    pub(crate) fn offer(&self, endpoint: &Endpoint, take: impl Fn(u32) -> bool) -> Taker {
        // SAFETY: see `endpoint`.
        let Some(steering) = (unsafe { SERVICES.get(endpoint.service) }) else {
            return Taker::Nobody;
        };
        if steering.is_probe(self.remote_port, self.same_address) {
            return match self.reach(endpoint, steering.probe_generation, &take) {
                Reach::Taken => Taker::Candidate,
                Reach::Plain | Reach::NoListener => Taker::Refused,
            };
        }
        let key = |generation| GenerationKey { service: endpoint.service, generation };
        // Nearly all connections end here. Where no listener is left, the walk says whose turn it is.
        if let Some(set) = steering.at_hand(endpoint.endpoint, self.client)
            && self.try_all(set, &take)
        {
            return Taker::Meant(key(steering.primary));
        }
        let mut rank = 0;
        while rank < MAX_RANKS {
            let generation = steering.choice(rank, self.client);
            if generation != NO_GENERATION {
                match self.reach(endpoint, generation, &take) {
                    Reach::Taken if rank == 0 => return Taker::Meant(key(generation)),
                    Reach::Taken => {
                        let meant = key(steering.choice(0, self.client));
                        return Taker::Fallback { meant, taker: key(generation) };
                    }
                    Reach::Plain => return Taker::Plain,
                    Reach::NoListener => {}
                }
            }
            rank += 1;
        }
        Taker::Nobody
    }

    #[inline(always)]
    fn reach(&self, endpoint: &Endpoint, generation: u32, take: &impl Fn(u32) -> bool) -> Reach {
        let key =
            ListenerSetKey { service: endpoint.service, generation, endpoint: endpoint.endpoint };
        // SAFETY: see `endpoint`.
        let Some(set) = (unsafe { LISTENER_SETS.get(key) }) else { return Reach::NoListener };
        match set.count {
            PLAIN => Reach::Plain,
            _ if self.try_all(*set, take) => Reach::Taken,
            _ => Reach::NoListener,
        }
    }

    /// Whether one of a generation's listeners takes the connection. The first one nearly always does.
    #[inline(always)]
    fn try_all<F: Fn(u32) -> bool>(&self, set: ListenerSet, take: &F) -> bool {
        if set.count == 0 {
            return false;
        }
        if take(set.slot(self.spread, 0)) {
            return true;
        }
        let mut others = Others { set, spread: self.spread, take, is_taken: false };
        let count = if set.count < MAX_TRIES { set.count - 1 } else { MAX_TRIES - 1 };
        let callback: extern "C" fn(u64, *mut c_void) -> i64 = try_other::<F>;
        // SAFETY: the kernel calls the function with a number and the pointer to `others`, which lives until after the call.
        unsafe { bpf_loop(count, callback as *mut c_void, (&raw mut others).cast(), 0) };
        others.is_taken
    }
}

/// The listeners of a generation after the first one that was tried.
struct Others<'a, F> {
    set: ListenerSet,
    spread: u32,
    take: &'a F,
    is_taken: bool,
}

/// One turn of the kernel's own loop: the verifier walks it once, where it would walk each turn of a loop of ours, for each
/// generation, on each way to it. Says whether to stop.
#[inline(never)]
extern "C" fn try_other<F: Fn(u32) -> bool>(number: u64, others: *mut c_void) -> i64 {
    // SAFETY: the kernel passes the pointer that it was given for this function.
    let others = unsafe { &mut *others.cast::<Others<'_, F>>() };
    others.is_taken = (others.take)(others.set.slot(others.spread, number as u32 + 1));
    i64::from(others.is_taken)
}

enum Reach {
    Taken,
    Plain,
    NoListener,
}

/// This CPU's counters of a service.
#[inline(always)]
pub(crate) fn counts_of_service<'a>(service: u32) -> Option<&'a mut SteerCounts> {
    // SAFETY: the element is this CPU's own, and both programs run with bottom halves disabled: neither is interrupted by
    // the other on its CPU.
    STEERED.get_ptr_mut(service).and_then(|counts| unsafe { counts.as_mut() })
}

/// Whether so much time has passed since `last` that something is worth being reported again; then it is remembered.
#[inline(always)]
pub(crate) fn is_due(last: &mut u64, interval: u64) -> bool {
    // SAFETY: takes no argument and only reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let due = now.wrapping_sub(*last) > interval;
    if due {
        *last = now;
    }
    due
}
