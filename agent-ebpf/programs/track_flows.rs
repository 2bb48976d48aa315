//! `track_flows`: counts the flows of each generation, and says when a listener appears or goes.

use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg},
};

use agent_ebpf::{
    endpoint::{EndpointKey, TCP},
    event::{GENERATION_EMPTY, LISTENER_APPEARED, LISTENER_GONE, STRANGER_LISTENS},
    flow::{CLOSED, FlowCounts, GenerationKey, LISTENER, OPEN, Tag},
};
use aya_ebpf::{
    helpers::bpf_get_socket_cookie, macros::btf_tracepoint, programs::BtfTracePointContext,
};

use crate::{
    follow_processes::current_member,
    kernel::{is_in_our_namespace, port_of},
    maps::{ENDPOINTS, FLOWS, TAGS},
    report::report,
};

const ESTABLISHED: i32 = 1;
const CLOSE: i32 = 7;
const CLOSE_WAIT: i32 = 8;
const LISTEN: i32 = 10;

/// Runs at every change of a TCP socket's state, with the socket locked: transitions of one socket never overlap. Only
/// `adopt_flow` may be at work on its tag meanwhile, and the role tells.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn track_flows(ctx: BtfTracePointContext) -> i32 {
    let (socket, old, new): (*mut c_void, i32, i32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    match new {
        ESTABLISHED => note_established(socket),
        CLOSE => note_closed(socket, old),
        LISTEN => note_listener(socket),
        _ => {}
    }
    0
}

/// An accepted socket carries the tag that it inherited; one that a client opened carries none.
#[inline(always)]
fn note_established(socket: *mut c_void) {
    let Some(tag) = tag_of(socket) else { return };
    if tag.role == LISTENER
        && let Some(counts) = counts_of(tag.generation)
    {
        tag.role = OPEN;
        add(&raw mut counts.opened);
    }
}

#[inline(always)]
fn note_closed(socket: *mut c_void, old: i32) {
    let Some(tag) = tag_of(socket) else { return };
    if old == LISTEN {
        // SAFETY: the socket is the tracepoint's own argument.
        report(LISTENER_GONE, tag.generation, unsafe { bpf_get_socket_cookie(socket) });
    } else if exchange(&raw mut tag.role, CLOSED) == OPEN {
        count_closed(tag.generation, old == ESTABLISHED || old == CLOSE_WAIT);
    }
}

/// Counts, and reports the moment in which the last open flow has gone. A flow that opens at the same moment only makes the
/// report early, which the agent finds out by asking for the sockets themselves.
#[inline(always)]
pub(crate) fn count_closed(generation: GenerationKey, reset: bool) {
    let Some(counts) = counts_of(generation) else { return };
    if reset {
        add(&raw mut counts.reset);
    }
    let closed = add(&raw mut counts.closed) + 1;
    if closed == load(&raw mut counts.opened) {
        report(GENERATION_EMPTY, generation, 0);
    }
}

/// `listen()` runs in the process itself. One that is nobody's is of interest where it listens on a port of ours: it may be
/// a server that somebody has started anew.
#[inline(always)]
fn note_listener(socket: *mut c_void) {
    // SAFETY: the socket is the tracepoint's own argument.
    let cookie = || unsafe { bpf_get_socket_cookie(socket) };
    if let Some(member) = current_member() {
        report(LISTENER_APPEARED, member.generation, cookie());
    } else if let Some(service) = port_of(socket).and_then(service_at)
        && is_in_our_namespace(socket)
    {
        report(STRANGER_LISTENS, GenerationKey { service, generation: 0 }, cookie());
    }
}

/// The service of a port in either family, or `NO_SERVICE` where only some addresses of it are endpoints.
#[inline(always)]
fn service_at(port: u16) -> Option<u32> {
    // SAFETY: RCU keeps the elements while the program runs.
    let endpoint = unsafe {
        match ENDPOINTS.get(EndpointKey::ipv4(TCP, 0, port)) {
            None => ENDPOINTS.get(EndpointKey::ipv6(TCP, [0; 4], port)),
            found => found,
        }
    };
    endpoint.map(|endpoint| endpoint.service)
}

#[inline(always)]
fn tag_of<'a>(socket: *mut c_void) -> Option<&'a mut Tag> {
    // SAFETY: the socket is the tracepoint's own argument; its lock keeps others from its storage.
    unsafe { TAGS.get(socket).as_mut() }
}

#[inline(always)]
pub(crate) fn counts_of<'a>(generation: GenerationKey) -> Option<&'a mut FlowCounts> {
    // SAFETY: RCU keeps the element while the program runs; its fields are only touched by atomic additions.
    FLOWS.get_ptr_mut(generation).and_then(|counts| unsafe { counts.as_mut() })
}

/// Adds one and returns the value before.
///
/// The intrinsic itself, because the target announces no compare-and-swap and core then hides `fetch_add`, which the
/// instruction set does have.
#[inline(always)]
pub(crate) fn add(counter: *mut u64) -> u64 {
    // SAFETY: a field of a map value: aligned, alive, and shared with other CPUs only through atomics.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) }
}

/// Takes one away again.
#[inline(always)]
pub(crate) fn subtract(counter: *mut u64) {
    // SAFETY: as in `add`.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, u64::MAX) };
}

/// Writes a tag's role and returns the one before.
#[inline(always)]
fn exchange(role: *mut u32, new: u32) -> u32 {
    // SAFETY: a field of a socket's storage: aligned, alive, and shared with other CPUs only through atomics.
    unsafe { atomic_xchg::<u32, { AtomicOrdering::Relaxed }>(role, new) }
}

/// Writes a tag's role if it is `old`, and returns the one before. The kernel's own is a full barrier, whatever is asked for.
#[inline(always)]
pub(crate) fn compare_exchange(role: *mut u32, old: u32, new: u32) -> u32 {
    // SAFETY: as in `exchange`.
    let (before, _) = unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::Relaxed }, { AtomicOrdering::Relaxed }>(
            role, old, new,
        )
    };
    before
}

#[inline(always)]
fn load(counter: *mut u64) -> u64 {
    // SAFETY: as in `add`.
    unsafe { core::ptr::read_volatile(counter) }
}
