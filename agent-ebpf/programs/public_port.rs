//! `public_port`: tells a server the port that its clients connect to, where its listener was moved to another one.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_get_socket_cookie, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};

use crate::maps::MOVED_BINDS;

#[cgroup_sock_addr(getsockname4)]
pub(crate) fn public_port4(ctx: SockAddrContext) -> i32 {
    show_public_port(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getsockname6)]
pub(crate) fn public_port6(ctx: SockAddrContext) -> i32 {
    show_public_port(&ctx);
    ALLOW
}

const ALLOW: i32 = 1;

/// A server that announces itself, or writes its address into links, asks its listener (`getsockname`). Its connections have
/// the public port anyway, and are not in the map.
#[inline(always)]
fn show_public_port(ctx: &SockAddrContext) {
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: RCU keeps the element while the program runs.
    let Some(public) = (unsafe { MOVED_BINDS.get(cookie) }) else { return };
    let port = u32::from((*public as u16).to_be());
    // SAFETY: a field that the verifier lets these programs write; what is written is what the caller is told.
    unsafe { core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, port) };
}
