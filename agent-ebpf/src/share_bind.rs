//! `share_bind`: lets a new generation bind the port that the old one still holds.

use agent_ebpf::{
    bind::SHARE,
    endpoint::{EndpointKey, TCP},
    event::BIND_MOVED,
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_uid_gid, bpf_get_socket_cookie, bpf_setsockopt},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use aya_log_ebpf::info;

use crate::{
    follow_processes::current_member,
    maps::{BIND_RULES, ENDPOINTS, MOVED_BINDS},
    report::report,
};

#[cgroup_sock_addr(bind4)]
pub(crate) fn share_bind4(ctx: SockAddrContext) -> i32 {
    share_bind(&ctx);
    ALLOW
}

#[cgroup_sock_addr(bind6)]
pub(crate) fn share_bind6(ctx: SockAddrContext) -> i32 {
    share_bind(&ctx);
    ALLOW
}

const ALLOW: i32 = 1;

#[inline(always)]
fn share_bind(ctx: &SockAddrContext) {
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
    if !is_port_of(member.generation.service, u16::from_be(port as u16)) {
        return;
    }
    let user = bpf_get_current_uid_gid() as u32;
    if rule.action == SHARE && rule.owner == user {
        share_port(ctx);
    } else {
        move_bind(ctx, u16::from_be(port as u16));
        report(BIND_MOVED, member.generation, 0);
        info!(ctx, "bind of port {} moved to a free one", u16::from_be(port as u16));
    }
}

/// Whether the port is an endpoint of the service in either family: a dual-stack bind meets IPv4 listeners too.
#[inline(always)]
fn is_port_of(service: u32, port: u16) -> bool {
    // SAFETY: RCU keeps the elements while the program runs.
    let (ipv4, ipv6) = unsafe {
        (
            ENDPOINTS.get(EndpointKey::ipv4(TCP, 0, port)),
            ENDPOINTS.get(EndpointKey::ipv6(TCP, [0; 4], port)),
        )
    };
    let ours = |endpoint: &agent_ebpf::endpoint::Endpoint| {
        endpoint.service == service || endpoint.specific != 0
    };
    ipv4.is_some_and(ours) || ipv6.is_some_and(ours)
}

#[inline(always)]
fn share_port(ctx: &SockAddrContext) {
    for option in [SO_REUSEADDR, SO_REUSEPORT] {
        let mut on: i32 = 1;
        // SAFETY: the context is valid and the value is an int of the length given.
        let failed = unsafe {
            bpf_setsockopt(
                ctx.as_ptr(),
                SOL_SOCKET,
                option,
                core::ptr::from_mut(&mut on).cast(),
                size_of::<i32>() as i32,
            )
        };
        if failed != 0 {
            info!(ctx, "socket option {} refused: {}", option, failed);
        }
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

pub(crate) const SOL_SOCKET: i32 = 1;
pub(crate) const SO_REUSEADDR: i32 = 2;
pub(crate) const SO_REUSEPORT: i32 = 15;
