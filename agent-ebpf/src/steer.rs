//! `steer`: gives a new connection to a listener of the generation that steering means.

use agent_ebpf::{
    endpoint::{Endpoint, EndpointKey, NO_SERVICE},
    event::FALLBACK_USED,
    flow::GenerationKey,
    steering::{ListenerSetKey, MAX_RANKS, MAX_TRIES, NO_GENERATION, PLAIN, SteerCounts, mix},
};
use aya_ebpf::{
    bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, sk_action::SK_PASS},
    helpers::bpf_ktime_get_ns,
    macros::sk_lookup,
    programs::SkLookupContext,
};
use aya_log_ebpf::warn;

use crate::{
    maps::{ENDPOINTS, LISTENER_SETS, LISTENERS, SERVICES, STEERED},
    report::report,
};

/// Runs for each packet that has no connection yet: a SYN, or the acknowledgement of a SYN cookie.
///
/// Fails open: whatever is not ours, or cannot be assigned, goes on to the kernel's own lookup.
#[sk_lookup]
pub(crate) fn steer(ctx: SkLookupContext) -> u32 {
    if let Some(packet) = Packet::read(&ctx)
        && let Some(endpoint) = find_endpoint(packet.local)
    {
        steer_to_endpoint(&ctx, &packet, endpoint);
    }
    SK_PASS
}

/// What the decision needs to know of the packet.
struct Packet {
    local: EndpointKey,
    /// Hash of the client's address: the same for all its connections.
    client: u32,
    /// Hash of address and port: spreads connections over the listeners of one generation.
    spread: u32,
}

impl Packet {
    #[inline(always)]
    fn read(ctx: &SkLookupContext) -> Option<Self> {
        const AF_INET: u32 = 2;
        const AF_INET6: u32 = 10;
        macro_rules! field {
            ($($name:tt)+) => {
                // SAFETY: the kernel passes a valid context. Each field is read once and as it is declared: the verifier
                // refuses wider or merged loads, which the compiler would otherwise make.
                unsafe { core::ptr::read_volatile(&raw const (*ctx.lookup).$($name)+) }
            };
        }
        let protocol = field!(protocol) as u8;
        let port = field!(local_port) as u16;
        let remote_port = u32::from(field!(remote_port));
        let (local, client) = match field!(family) {
            AF_INET => (EndpointKey::ipv4(protocol, field!(local_ip4), port), field!(remote_ip4)),
            AF_INET6 => {
                let local = [
                    field!(local_ip6[0]),
                    field!(local_ip6[1]),
                    field!(local_ip6[2]),
                    field!(local_ip6[3]),
                ];
                let client =
                    mix(mix(field!(remote_ip6[0]), field!(remote_ip6[1])), field!(remote_ip6[2]));
                (EndpointKey::ipv6(protocol, local, port), mix(client, field!(remote_ip6[3])))
            }
            _ => return None,
        };
        Some(Self { local, client, spread: mix(client, remote_port) })
    }
}

#[inline(always)]
fn find_endpoint(local: EndpointKey) -> Option<&'static Endpoint> {
    // SAFETY: the element may be replaced meanwhile, but RCU keeps the memory that we look at until the program ends.
    let any = unsafe { ENDPOINTS.get(local.any()) }?;
    if any.specific != 0 {
        // SAFETY: as above.
        if let Some(exact) = unsafe { ENDPOINTS.get(local) } {
            return Some(exact);
        }
    }
    (any.service != NO_SERVICE).then_some(any)
}

#[inline(always)]
fn steer_to_endpoint(ctx: &SkLookupContext, packet: &Packet, endpoint: &Endpoint) {
    // SAFETY: see `find_endpoint`.
    let Some(steering) = (unsafe { SERVICES.get(endpoint.service) }) else { return };
    let Some(counts) = STEERED.get_ptr_mut(endpoint.service) else { return };
    // SAFETY: the element is this CPU's own, and a lookup program is not interrupted by another one on its CPU (both run
    // with bottom halves disabled).
    let counts = unsafe { &mut *counts };
    let mut rank = 0;
    while rank < MAX_RANKS {
        let generation = steering.choice(rank, packet.client);
        if generation != NO_GENERATION {
            match reach(ctx, packet, endpoint, generation) {
                Reach::Assigned if rank == 0 => return counts.steered += 1,
                Reach::Assigned => {
                    return fall_back(
                        ctx,
                        endpoint.service,
                        steering.choice(0, packet.client),
                        counts,
                    );
                }
                Reach::Plain => return counts.plain += 1,
                Reach::NoListener => {}
            }
        }
        rank += 1;
    }
    counts.unreached += 1;
}

enum Reach {
    Assigned,
    Plain,
    NoListener,
}

/// Assigns the packet to one of a generation's listeners. A closed one has left the map by itself (`sock_map_unhash`).
#[inline(always)]
fn reach(ctx: &SkLookupContext, packet: &Packet, endpoint: &Endpoint, generation: u32) -> Reach {
    let key = ListenerSetKey { service: endpoint.service, generation, endpoint: endpoint.endpoint };
    // SAFETY: see `find_endpoint`.
    let Some(set) = (unsafe { LISTENER_SETS.get(key) }) else { return Reach::NoListener };
    if set.count == PLAIN {
        return Reach::Plain;
    }
    let mut attempt = 0;
    while attempt < MAX_TRIES && attempt < set.count {
        let slot = set.slot(packet.spread, attempt);
        // Without this flag the kernel would choose again among all generations that share the port.
        if LISTENERS.redirect_sk_lookup(ctx, slot, u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT)).is_ok()
        {
            return Reach::Assigned;
        }
        attempt += 1;
    }
    Reach::NoListener
}

/// Counts a connection that went elsewhere, and tells the agent at most once a second.
#[inline(always)]
fn fall_back(ctx: &SkLookupContext, service: u32, meant: u32, counts: &mut SteerCounts) {
    const SECOND: u64 = 1_000_000_000;
    counts.fallback += 1;
    // SAFETY: takes no argument and only reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.wrapping_sub(counts.reported_at) > SECOND {
        counts.reported_at = now;
        report(FALLBACK_USED, GenerationKey { service, generation: meant }, 0);
        warn!(
            ctx,
            "service {}: generation {} has no listener left, another one took its connection",
            service,
            meant
        );
    }
}
