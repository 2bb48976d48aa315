//! `migrate`: moves connections that nobody has accepted when their listener closes.

use core::ffi::c_void;

use agent_ebpf::{
    endpoint::TCP, event::CONNECTIONS_MOVED, flow::GenerationKey, steering::SteerCounts,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_hdr_start_off::BPF_HDR_START_NET,
        bpf_sock,
        sk_action::{self, SK_DROP, SK_PASS},
    },
    helpers::generated::{
        bpf_sk_select_reuseport, bpf_skb_load_bytes, bpf_skb_load_bytes_relative,
    },
    macros::sk_reuseport,
    programs::SkReuseportContext,
};

use crate::{
    connection::{Connection, Taker, counts_of_service, is_due},
    maps::LISTENERS,
    report::report,
};

/// Runs in the reuseport group of a service's listeners, in two situations.
///
/// A listener is closed, and each connection in its accept queue, or half-open at it, is to go to another one of the group
/// (`inet_csk_listen_stop`, `tcp_v4_rcv`, both by `reuseport_migrate_sock`). Without this program the client is reset,
/// unless the machine's `tcp_migrate_req` says otherwise; then the kernel picks any generation.
///
/// Or the kernel's own lookup chooses within the group (`reuseport_select_sock`), because `steer` is not there. Then this
/// program decides as `steer` would.
///
/// Where no listener of ours can be selected the kernel picks one of the group by hash.
#[sk_reuseport(migrate)]
pub(crate) fn migrate(ctx: SkReuseportContext) -> u32 {
    // SAFETY: the kernel passes a valid context; the field is read once and as it is declared.
    let migrating =
        unsafe { core::ptr::read_volatile(&raw const (*ctx.md).__bindgen_anon_4.migrating_sk) };
    let connection = if migrating.is_null() { of_packet(&ctx) } else { of_socket(migrating) };
    match connection {
        Some(connection) if migrating.is_null() => select(&ctx, &connection),
        Some(connection) => move_connection(&ctx, &connection),
        None => SK_PASS,
    }
}

#[inline(always)]
fn select(ctx: &SkReuseportContext, connection: &Connection) -> sk_action::Type {
    let Some(endpoint) = connection.endpoint() else { return SK_PASS };
    verdict(&connection.offer(endpoint, |slot| take(ctx, slot)))
}

#[inline(always)]
fn move_connection(ctx: &SkReuseportContext, connection: &Connection) -> sk_action::Type {
    let Some(endpoint) = connection.endpoint() else { return SK_PASS };
    let Some(counts) = counts_of_service(endpoint.service) else { return SK_PASS };
    let taker = connection.offer(endpoint, |slot| take(ctx, slot));
    match taker {
        Taker::Meant(taker) | Taker::Fallback { taker, .. } => note_move(taker, counts),
        Taker::Plain | Taker::Nobody => counts.stranded += 1,
        Taker::Candidate | Taker::Refused => {}
    }
    verdict(&taker)
}

/// Where nothing was selected the kernel picks a listener of the group, which a probe must not get: it would be another
/// generation's.
#[inline(always)]
const fn verdict(taker: &Taker) -> sk_action::Type {
    match taker {
        Taker::Refused => SK_DROP,
        Taker::Meant(_)
        | Taker::Fallback { .. }
        | Taker::Plain
        | Taker::Candidate
        | Taker::Nobody => SK_PASS,
    }
}

/// Refused for a listener that is not in the group, whose port another one has.
#[inline(always)]
fn take(ctx: &SkReuseportContext, slot: u32) -> bool {
    let mut slot = slot;
    // SAFETY: the context is the program's own, and the key is a word on the stack.
    let failed = unsafe {
        bpf_sk_select_reuseport(
            ctx.md,
            (&raw const LISTENERS).cast_mut().cast(),
            (&raw mut slot).cast(),
            0,
        )
    };
    failed == 0
}

/// Tells the agent, which wakes the listener: not every kernel does.
#[inline(always)]
fn note_move(taker: GenerationKey, counts: &mut SteerCounts) {
    const MILLISECOND: u64 = 1_000_000;
    counts.moved += 1;
    if is_due(&mut counts.move_reported_at, MILLISECOND) {
        report(CONNECTIONS_MOVED, taker, 0);
    }
}

/// The connection of a socket or of a half-open request.
#[inline(always)]
fn of_socket(socket: *const bpf_sock) -> Option<Connection> {
    macro_rules! field {
        ($($name:tt)+) => {
            // SAFETY: not null, as the caller has checked. Each field is read once and as it is declared, as the verifier
            // demands.
            unsafe { core::ptr::read_volatile(&raw const (*socket).$($name)+) }
        };
    }
    macro_rules! address {
        ($name:ident) => {
            [field!($name[0]), field!($name[1]), field!($name[2]), field!($name[3])]
        };
    }
    let local_port = field!(src_port) as u16;
    let remote_port = u16::from_be(field!(dst_port));
    match field!(family) {
        AF_INET => Some(Connection::ipv4(
            TCP,
            (field!(src_ip4), local_port),
            (field!(dst_ip4), remote_port),
        )),
        AF_INET6 => Some(Connection::ipv6(
            TCP,
            (address!(src_ip6), local_port),
            (address!(dst_ip6), remote_port),
        )),
        _ => None,
    }
}

/// The connection that a packet asks for.
#[inline(always)]
fn of_packet(ctx: &SkReuseportContext) -> Option<Connection> {
    // Ports are where the packet's data begins for this type of program.
    let mut ports = [0_u16; 2];
    load(ctx, Header::Transport, 0, &mut ports)?;
    let [remote_port, local_port] = ports.map(u16::from_be);
    // SAFETY: the kernel passes a valid context; the field is read once and as it is declared.
    let protocol = unsafe { core::ptr::read_volatile(&raw const (*ctx.md).eth_protocol) } as u16;
    match u16::from_be(protocol) {
        ETH_P_IP => {
            let mut addresses = [0_u32; 2];
            load(ctx, Header::Network, IPV4_ADDRESSES, &mut addresses)?;
            let [remote, local] = addresses;
            Some(Connection::ipv4(TCP, (local, local_port), (remote, remote_port)))
        }
        ETH_P_IPV6 => {
            let mut addresses = [[0_u32; 4]; 2];
            load(ctx, Header::Network, IPV6_ADDRESSES, &mut addresses)?;
            let [remote, local] = addresses;
            Some(Connection::ipv6(TCP, (local, local_port), (remote, remote_port)))
        }
        _ => None,
    }
}

enum Header {
    Network,
    Transport,
}

#[inline(always)]
fn load<T>(ctx: &SkReuseportContext, header: Header, offset: u32, into: &mut T) -> Option<()> {
    let to = core::ptr::from_mut(into).cast::<c_void>();
    let length = size_of::<T>() as u32;
    // SAFETY: the context is the program's own, and the buffer has the length given.
    let failed = unsafe {
        match header {
            Header::Transport => bpf_skb_load_bytes(ctx.as_ptr(), offset, to, length),
            Header::Network => {
                bpf_skb_load_bytes_relative(ctx.as_ptr(), offset, to, length, BPF_HDR_START_NET)
            }
        }
    };
    (failed == 0).then_some(())
}

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Where source and destination begin in the header.
const IPV4_ADDRESSES: u32 = 12;
const IPV6_ADDRESSES: u32 = 8;
