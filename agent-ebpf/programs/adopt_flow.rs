//! `adopt_flow`: gives one open connection a tag, another one, or none.
//!
//! Run by the agent itself (`BPF_PROG_TEST_RUN`), with the request as its packet, and never attached: a program of this kind
//! finds a connection by its addresses, with a reference that is taken as the network stack takes its own. The connection is
//! not locked meanwhile, so that it may end at any moment; [`CHANGING`] settles who counts that.

use core::ffi::c_void;

use agent_ebpf::{
    flow::{CHANGING, LISTENER, OPEN, Tag},
    socket::{ADOPT, DONE, FlowRequest, MOVE, NOT_SEEN, RELEASE},
};
use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release},
    macros::classifier,
    programs::TcContext,
};

use crate::{
    adopt_listeners::{EINVAL, ENOMEM},
    maps::TAGS,
    track_flows::{add, compare_exchange, count_closed, counts_of},
};

#[classifier]
pub(crate) fn adopt_flow(ctx: TcContext) -> i32 {
    let Ok(request) = ctx.load::<FlowRequest>(0) else { return -EINVAL };
    with_flow(&ctx, &request, |socket| match request.action {
        ADOPT => adopt(&ctx, &request, socket),
        MOVE => move_to(&request, socket),
        RELEASE => release(socket),
        _ => -EINVAL,
    })
}

/// A flow that was open before its listener had a tag. One that has a tag inherited it, and is counted.
///
/// The kernel unhashes a connection before it reports its end (`tcp_set_state`). One that is still found after it got its tag
/// will therefore be met by `track_flows` with the tag on it.
#[inline(always)]
fn adopt(ctx: &TcContext, request: &FlowRequest, socket: *mut c_void) -> i32 {
    // SAFETY: the socket was just found, and is released after this.
    if !unsafe { TAGS.get(socket) }.is_null() {
        return DONE;
    }
    let mut tag = Tag { generation: request.generation, role: CHANGING, options_set: 0 };
    // SAFETY: as above.
    let Some(tag) = (unsafe { TAGS.get_or_create(socket, &mut tag).as_mut() }) else {
        return -ENOMEM;
    };
    if with_flow(ctx, request, |_| DONE) != DONE {
        // SAFETY: as above.
        unsafe { TAGS.remove(socket) };
        return NOT_SEEN;
    }
    count_opened(tag);
    if compare_exchange(&raw mut tag.role, CHANGING, OPEN) != CHANGING {
        count_closed(tag.generation, false);
    }
    DONE
}

/// The generation that a flow leaves counts it as closed, without a reset, and the other one as opened.
#[inline(always)]
fn move_to(request: &FlowRequest, socket: *mut c_void) -> i32 {
    // SAFETY: the socket was just found, and is released after this.
    let Some(tag) = (unsafe { TAGS.get(socket).as_mut() }) else { return DONE };
    let left = tag.generation;
    match compare_exchange(&raw mut tag.role, OPEN, CHANGING) {
        OPEN => {
            tag.generation = request.generation;
            count_opened(tag);
            let ended = compare_exchange(&raw mut tag.role, CHANGING, OPEN) != CHANGING;
            count_closed(left, false);
            if ended {
                count_closed(tag.generation, false);
            }
        }
        LISTENER => tag.generation = request.generation,
        _ => {}
    }
    DONE
}

#[inline(always)]
fn release(socket: *mut c_void) -> i32 {
    // SAFETY: the socket was just found, and is released after this.
    match unsafe { TAGS.remove(socket) } as i32 {
        NO_TAG => DONE,
        outcome => outcome,
    }
}

#[inline(always)]
fn count_opened(tag: &Tag) {
    if let Some(counts) = counts_of(tag.generation) {
        add(&raw mut counts.opened);
    }
}

/// Runs `act` on the requested flow, if there is one.
///
/// Where there is none the kernel answers with the listener, for which it asks `steer` like for any other packet.
#[inline(always)]
fn with_flow(ctx: &TcContext, request: &FlowRequest, act: impl FnOnce(*mut c_void) -> i32) -> i32 {
    let size = if request.is_ipv4 != 0 { IPV4_TUPLE } else { IPV6_TUPLE };
    let tuple = (&raw const request.tuple).cast_mut().cast::<bpf_sock_tuple>();
    // SAFETY: the kernel reads at most `size` bytes, which the request has.
    let socket = unsafe {
        bpf_sk_lookup_tcp(ctx.skb.skb.cast(), tuple, size, i64::from(BPF_F_CURRENT_NETNS) as u64, 0)
    };
    if socket.is_null() {
        return NOT_SEEN;
    }
    let outcome = if is_listener(socket) { NOT_SEEN } else { act(socket.cast()) };
    // SAFETY: the reference is the lookup's, and is given back once.
    unsafe { bpf_sk_release(socket.cast()) };
    outcome
}

#[inline(always)]
fn is_listener(socket: *const bpf_sock) -> bool {
    // SAFETY: the socket was just found; the verifier turns this into a read of the socket's own field.
    unsafe { core::ptr::read_volatile(&raw const (*socket).state) == LISTEN }
}

const LISTEN: u32 = 10;
/// `-ENOENT`
const NO_TAG: i32 = -2;
/// Sizes of the two members of `bpf_sock_tuple`.
const IPV4_TUPLE: u32 = 12;
const IPV6_TUPLE: u32 = 36;
