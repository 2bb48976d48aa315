//! `adopt_sockets`: takes over sockets that run already, or gives them back, without their process and without a descriptor.
//!
//! The kernel walks all TCP sockets of the reader's network namespace and holds each one's lock while this program sees it,
//! so that tagging and counting a connection cannot race with its end. No duplicate of a listener ever exists in user space:
//! one that is held would keep a dead server's socket open, with clients hanging on it.

use core::ffi::c_void;

use agent_ebpf::{
    flow::{LISTENER, OPEN, SET_REUSE_ADDRESS, SET_REUSE_PORT, Tag},
    socket::{ADOPT_FLOW, ADOPT_LISTENER, Adoption, DONE, MOVE_FLOW, NO_SLOT, RELEASE},
};
use aya_ebpf::helpers::{
    bpf_get_socket_cookie, bpf_getsockopt, bpf_map_update_elem, bpf_setsockopt, bpf_skc_to_tcp_sock,
};

use crate::{
    maps::{ADOPTIONS, LISTENERS, TAGS},
    share_bind::{SO_REUSEADDR, SO_REUSEPORT, SOL_SOCKET},
    track_flows::{add, count_closed, counts_of},
};

/// The context of `iter/tcp` (`struct bpf_iter__tcp`): each member is a pointer in a field of eight bytes.
#[repr(C)]
pub(crate) struct TcpIteration {
    meta: *mut c_void,
    socket: *mut c_void,
}

// aya-ebpf has no macro for socket iterators.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn adopt_sockets(ctx: *mut TcpIteration) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let any_socket = unsafe { (*ctx).socket };
    if any_socket.is_null() {
        return CONTINUE;
    }
    // SAFETY: the socket is the iterator's own argument. The helper returns null for half-open and time-wait sockets.
    let socket = unsafe { bpf_skc_to_tcp_sock(any_socket) }.cast::<c_void>();
    if socket.is_null() {
        return CONTINUE;
    }
    // SAFETY: the kernel just vouched for the socket.
    let cookie = unsafe { bpf_get_socket_cookie(socket) };
    let Some(adoption) = ADOPTIONS.get_ptr_mut(cookie) else { return CONTINUE };
    // SAFETY: RCU keeps the element; only the agent that waits for this run looks at it.
    let adoption = unsafe { &mut *adoption };
    adoption.outcome = match adoption.action {
        ADOPT_LISTENER => adopt_listener(socket, adoption),
        ADOPT_FLOW => adopt_flow(socket, adoption),
        MOVE_FLOW => move_flow(socket, adoption),
        RELEASE => release(socket),
        _ => -EINVAL,
    };
    CONTINUE
}

const CONTINUE: i32 = 0;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;

#[inline(always)]
fn adopt_listener(socket: *mut c_void, adoption: &Adoption) -> i32 {
    let Some(tag) = tag(socket, adoption, LISTENER) else { return -ENOMEM };
    if adoption.share != 0 {
        share(socket, tag);
    }
    if adoption.slot == NO_SLOT {
        return DONE;
    }
    let slot = adoption.slot;
    // SAFETY: the verifier lets iterators update socket maps, and the socket is locked by the iterator.
    unsafe {
        bpf_map_update_elem(
            (&raw const LISTENERS).cast_mut().cast(),
            (&raw const slot).cast(),
            socket,
            0,
        ) as i32
    }
}

/// The order matters little: the socket is locked, so it cannot end between being tagged and being counted.
#[inline(always)]
fn adopt_flow(socket: *mut c_void, adoption: &Adoption) -> i32 {
    // SAFETY: the socket is the iterator's own argument.
    let inherited = unsafe { TAGS.get(socket).as_ref() }.is_some();
    let Some(tag) = tag(socket, adoption, OPEN) else { return -ENOMEM };
    if !inherited && let Some(counts) = counts_of(tag.generation) {
        add(&raw mut counts.opened);
    }
    if adoption.share != 0 {
        share(socket, tag);
    }
    DONE
}

/// The generation that a flow leaves counts it as closed, without a reset, and the other one as opened.
#[inline(always)]
fn move_flow(socket: *mut c_void, adoption: &Adoption) -> i32 {
    // SAFETY: the socket is the iterator's own argument; its lock keeps others from its storage.
    let Some(tag) = (unsafe { TAGS.get(socket).as_mut() }) else { return DONE };
    let left = tag.generation;
    tag.generation = adoption.tag.generation;
    if tag.role == OPEN {
        count_closed(left, false);
        if let Some(counts) = counts_of(tag.generation) {
            add(&raw mut counts.opened);
        }
    }
    DONE
}

#[inline(always)]
fn tag<'a>(socket: *mut c_void, adoption: &Adoption, role: u32) -> Option<&'a mut Tag> {
    let mut tag = Tag { role, ..adoption.tag };
    // SAFETY: the socket is the iterator's own argument; its lock keeps others from its storage.
    unsafe { TAGS.get_or_create(socket, &mut tag).as_mut() }
}

/// Connections count in the bind conflict too: with neither option on them, a second bind is refused.
#[inline(always)]
fn share(socket: *mut c_void, tag: &mut Tag) {
    if !is_on(socket, SO_REUSEADDR) && set(socket, SO_REUSEADDR, 1) {
        tag.options_set |= SET_REUSE_ADDRESS;
    }
    if !is_on(socket, SO_REUSEPORT) && set(socket, SO_REUSEPORT, 1) {
        tag.options_set |= SET_REUSE_PORT;
    }
}

#[inline(always)]
fn release(socket: *mut c_void) -> i32 {
    // SAFETY: the socket is the iterator's own argument.
    let Some(tag) = (unsafe { TAGS.get(socket).as_ref() }) else { return DONE };
    let options = tag.options_set;
    if options & SET_REUSE_ADDRESS != 0 {
        set(socket, SO_REUSEADDR, 0);
    }
    if options & SET_REUSE_PORT != 0 {
        set(socket, SO_REUSEPORT, 0);
    }
    // SAFETY: as above.
    unsafe { TAGS.remove(socket) as i32 }
}

#[inline(always)]
fn is_on(socket: *mut c_void, option: i32) -> bool {
    let mut value: i32 = 0;
    // SAFETY: the value is an int of the length given; the iterator holds the socket's lock, as the helper demands.
    let failed = unsafe {
        bpf_getsockopt(
            socket,
            SOL_SOCKET,
            option,
            core::ptr::from_mut(&mut value).cast(),
            size_of::<i32>() as i32,
        )
    };
    failed == 0 && value != 0
}

#[inline(always)]
fn set(socket: *mut c_void, option: i32, mut value: i32) -> bool {
    // SAFETY: as in `is_on`.
    let failed = unsafe {
        bpf_setsockopt(
            socket,
            SOL_SOCKET,
            option,
            core::ptr::from_mut(&mut value).cast(),
            size_of::<i32>() as i32,
        )
    };
    failed == 0
}
