//! `steer`: gives a new connection to a listener of the generation that steering means.

use agent_ebpf::{
    endpoint::Endpoint, event::FALLBACK_USED, flow::GenerationKey, steering::SteerCounts,
};
use aya_ebpf::{
    bindings::{
        BPF_SK_LOOKUP_F_NO_REUSEPORT, BPF_SK_LOOKUP_F_REPLACE,
        sk_action::{self, SK_DROP, SK_PASS},
    },
    macros::sk_lookup,
    programs::SkLookupContext,
};
use aya_log_ebpf::warn;

use crate::{
    connection::{Connection, Taker, counts_of_service, is_due},
    maps::LISTENERS,
    report::report,
};

/// Runs for each packet that has no connection yet: a SYN, or the acknowledgement of a SYN cookie.
///
/// Fails open: whatever is not ours, or cannot be assigned, goes on to the kernel's own lookup. But for a probe: it tells
/// something of the candidate only if nobody else can answer it.
#[sk_lookup]
pub(crate) fn steer(ctx: SkLookupContext) -> u32 {
    if let Some(connection) = read(&ctx)
        && let Some(endpoint) = connection.endpoint()
    {
        return steer_to_endpoint(&ctx, &connection, endpoint);
    }
    SK_PASS
}

#[inline(always)]
fn read(ctx: &SkLookupContext) -> Option<Connection> {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    macro_rules! field {
        ($($name:tt)+) => {
            // SAFETY: the kernel passes a valid context. Each field is read once and as it is declared: the verifier
            // refuses wider or merged loads, which the compiler would otherwise make.
            unsafe { core::ptr::read_volatile(&raw const (*ctx.lookup).$($name)+) }
        };
    }
    macro_rules! address {
        ($name:ident) => {
            [field!($name[0]), field!($name[1]), field!($name[2]), field!($name[3])]
        };
    }
    let protocol = field!(protocol) as u8;
    let local_port = field!(local_port) as u16;
    let remote_port = u16::from_be(field!(remote_port));
    match field!(family) {
        AF_INET => Some(Connection::ipv4(
            protocol,
            (field!(local_ip4), local_port),
            (field!(remote_ip4), remote_port),
        )),
        AF_INET6 => Some(Connection::ipv6(
            protocol,
            (address!(local_ip6), local_port),
            (address!(remote_ip6), remote_port),
        )),
        _ => None,
    }
}

#[inline(always)]
fn steer_to_endpoint(
    ctx: &SkLookupContext,
    connection: &Connection,
    endpoint: &Endpoint,
) -> sk_action::Type {
    let Some(counts) = counts_of_service(endpoint.service) else { return SK_PASS };
    // Without the first the kernel would choose again among all generations that share the port; without the second it
    // refuses our choice (`EEXIST`) where another program of this network namespace has chosen before us.
    let flags = u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
    let assign = |slot| LISTENERS.redirect_sk_lookup(ctx, slot, flags).is_ok();
    match connection.offer(endpoint, assign) {
        Taker::Meant(_) => counts.steered += 1,
        Taker::Fallback { meant, .. } => fall_back(ctx, meant, counts),
        Taker::Plain => counts.plain += 1,
        Taker::Nobody => counts.unreached += 1,
        Taker::Candidate => {}
        Taker::Refused => return SK_DROP,
    }
    SK_PASS
}

/// Counts a connection that went elsewhere, and tells the agent at most once a second.
#[inline(always)]
fn fall_back(ctx: &SkLookupContext, meant: GenerationKey, counts: &mut SteerCounts) {
    const SECOND: u64 = 1_000_000_000;
    counts.fallback += 1;
    if is_due(&mut counts.reported_at, SECOND) {
        report(FALLBACK_USED, meant, 0);
        warn!(
            ctx,
            "service {}: generation {} has no listener left, another one took its connection",
            meant.service,
            meant.generation
        );
    }
}
