//! `share_bind`: lets a new generation bind the port that the old one still holds.

use agent_ebpf::{
    bind::SHARE,
    endpoint::{EndpointKey, TCP},
    event::BIND_MOVED,
    flow::{GenerationKey, LISTENER, Tag},
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_uid_gid, bpf_get_socket_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use aya_log_ebpf::info;

use crate::{
    follow_processes::current_member,
    maps::{BIND_RULES, ENDPOINTS, MOVED_BINDS, TAGS},
    report::report,
    sharing,
};

#[cgroup_sock_addr(bind4)]
pub(crate) fn share_bind4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; fields are read once and as declared, see `steer`.
    let address = unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip4) };
    share_bind(&ctx, |port| EndpointKey::ipv4(TCP, address, port));
    ALLOW
}

#[cgroup_sock_addr(bind6)]
pub(crate) fn share_bind6(ctx: SockAddrContext) -> i32 {
    let mut address = [0; 4];
    for (word, at) in address.iter_mut().zip(0..) {
        // SAFETY: as in `share_bind4`; there are four words.
        *word = unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[at]) };
    }
    share_bind(&ctx, |port| EndpointKey::ipv6(TCP, address, port));
    ALLOW
}

const ALLOW: i32 = 1;

#[inline(always)]
fn share_bind(ctx: &SockAddrContext, key: impl FnOnce(u16) -> EndpointKey) {
    const SOCK_STREAM: u32 = 1;
    // SAFETY: the kernel passes a valid context; fields are read once and as declared, see `steer`.
    let (kind, port) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx.sock_addr).type_),
            core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_port),
        )
    };
    if kind != SOCK_STREAM {
        return;
    }
    let Some(member) = current_member() else { return };
    // SAFETY: RCU keeps the element while the program runs.
    let Some(rule) = (unsafe { BIND_RULES.get(member.generation) }) else { return };
    if !is_endpoint_of(member.generation.service, key(u16::from_be(port as u16))) {
        return;
    }
    let user = bpf_get_current_uid_gid() as u32;
    if rule.action == SHARE && rule.owner == user {
        share_port(ctx, member.generation);
    } else {
        move_bind(ctx, u16::from_be(port as u16));
        report(BIND_MOVED, member.generation, 0);
    }
}

/// Whether the address is one that the service is reached by. Which other services have exact addresses of the port is
/// nothing to it.
#[inline(always)]
fn is_endpoint_of(service: u32, key: EndpointKey) -> bool {
    let any = key.any();
    // SAFETY: RCU keeps the elements while the program runs.
    let (same, other) =
        unsafe { (ENDPOINTS.get(any), ENDPOINTS.get(EndpointKey::ipv4(TCP, 0, key.port))) };
    if key == any {
        // On all addresses of IPv6 it meets listeners of IPv4 too.
        return same.is_some_and(|it| it.is_met_by(service))
            || other.is_some_and(|it| it.is_met_by(service));
    }
    // SAFETY: as above.
    match unsafe { ENDPOINTS.get(key) } {
        Some(exact) => exact.service == service,
        None => same.is_some_and(|it| it.service == service),
    }
}

/// What was off is remembered, to be switched off again when the port is handed back.
#[inline(always)]
fn share_port(ctx: &SockAddrContext, generation: GenerationKey) {
    let options_set = sharing::switch_on(ctx.as_ptr());
    if options_set != 0 {
        // SAFETY: the kernel passes a valid context, whose socket is the one that is bound.
        let socket =
            unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).__bindgen_anon_1.sk) };
        let mut tag = Tag { generation, role: LISTENER, options_set };
        // SAFETY: as above. Without memory for it the port stays shared, which is all that is lost.
        unsafe { TAGS.get_or_create(socket.cast(), &mut tag) };
    } else if !sharing::is_shared(ctx.as_ptr()) {
        info!(ctx, "the kernel refuses to share the port");
    }
}

#[inline(always)]
fn move_bind(ctx: &SockAddrContext, public: u16) {
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if MOVED_BINDS.insert(cookie, u32::from(public), 0).is_err() {
        // The agent could not tell which endpoint the listener is for: let the bind fail as it would without us.
        return;
    }
    // SAFETY: a field that the verifier lets bind programs write; port 0 means any free one.
    unsafe { core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, 0) };
}
