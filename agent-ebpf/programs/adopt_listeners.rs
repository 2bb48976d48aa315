//! `adopt_listeners`: takes over listeners that run already, or gives them back, without their process and without a
//! descriptor.
//!
//! The kernel walks the TCP sockets of the reader's network namespace and holds each one's lock while this program sees it.
//! No duplicate of a listener ever exists in user space: one that is held would keep a dead server's socket open, with
//! clients hanging on it.
//!
//! # Kernel
//!
//! Listeners come first (`bpf_iter_tcp_batch`), and the walk is to end with them. In the table of connections the kernel takes
//! references on half-open requests that have none yet (`bpf_iter_tcp_established_batch` against `reqsk_queue_hash_req`), and
//! with that frees somebody's memory sooner or later. Connections are `adopt_flow`'s.
//!
//! Before 9378096e8a65 (Linux 6.5, 6.1.42) the walk had a listener by `lock_sock_fast` only, with its spinlock held, and an
//! update of a socket map takes that lock once more (`bh_lock_sock`): it would never return, and the machine with it. So each
//! listener is asked whether it is ours for the moment, whatever the kernel calls itself.

use core::ffi::c_void;

use agent_ebpf::{
    flow::{LISTENER, Tag},
    socket::{ADOPT, Adoption, DONE, EXAMINE, HAS_PROGRAM, NO_SLOT, NOT_SEEN, RELEASE},
};
use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_map_update_elem, bpf_skc_to_tcp_sock};

use crate::{
    iteration::{Meta, tell_reader},
    kernel::{group_program_of, is_fit_for_map, is_owned},
    maps::{ADOPTIONS, LISTENERS, TAGS},
    sharing,
};

/// The context of `iter/tcp` (`struct bpf_iter__tcp`): each member is a pointer in a field of eight bytes.
#[repr(C)]
pub(crate) struct TcpIteration {
    meta: *mut Meta,
    socket: *mut c_void,
}

// aya-ebpf has no macro for socket iterators.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn adopt_listeners(ctx: *mut TcpIteration) -> i32 {
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
    // A walk that is resumed may come by a socket twice.
    let is_new = adoption.outcome == NOT_SEEN;
    adoption.outcome = match adoption.action {
        ADOPT if !is_owned(socket) => -EDEADLK,
        ADOPT => adopt(socket, adoption),
        RELEASE => release(socket),
        EXAMINE => examine(socket, adoption),
        _ => -EINVAL,
    };
    // One byte for each socket that was wanted: the reader asks for as many bytes as it wants sockets, and the kernel walks no
    // further when they are there (`bpf_seq_read`).
    if is_new {
        // SAFETY: the kernel passes a valid context.
        tell_reader(unsafe { (*ctx).meta }, &0_u8);
    }
    CONTINUE
}

const CONTINUE: i32 = 0;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EINVAL: i32 = 22;
const EDEADLK: i32 = 35;
const EOPNOTSUPP: i32 = 95;

#[inline(always)]
fn adopt(socket: *mut c_void, adoption: &Adoption) -> i32 {
    if adoption.slot != NO_SLOT && !is_fit_for_map(socket) {
        return -EOPNOTSUPP;
    }
    let mut tag = Tag { role: LISTENER, ..adoption.tag };
    // SAFETY: the socket is the iterator's own argument; its lock keeps others from its storage.
    let Some(tag) = (unsafe { TAGS.get_or_create(socket, &mut tag).as_mut() }) else {
        return -ENOMEM;
    };
    if adoption.share != 0 {
        tag.options_set |= sharing::switch_on(socket);
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

#[inline(always)]
fn release(socket: *mut c_void) -> i32 {
    // SAFETY: the socket is the iterator's own argument.
    let Some(tag) = (unsafe { TAGS.get(socket).as_ref() }) else { return DONE };
    sharing::switch_off(socket, tag.options_set);
    // SAFETY: as above.
    unsafe { TAGS.remove(socket) as i32 }
}

/// The kernel tells nobody whether a group has a program of its own, and replaces it without a word.
#[inline(always)]
fn examine(socket: *mut c_void, adoption: &mut Adoption) -> i32 {
    match group_program_of(socket) {
        Some(program) => {
            adoption.slot = program;
            HAS_PROGRAM
        }
        None => DONE,
    }
}
