//! `refuse_multipath`: keeps the listeners of launched generations steerable.

use aya_ebpf::{helpers::bpf_set_retval, macros::cgroup_sock, programs::SockContext};

/// Refuses Multipath TCP sockets: no socket map takes their listeners (`sock_map_sk_is_suitable`), so nobody could steer to
/// them. Programs fall back to TCP by themselves, as they do on a kernel without it.
#[cgroup_sock(sock_create)]
pub(crate) fn refuse_multipath(ctx: SockContext) -> i32 {
    const IPPROTO_MPTCP: u32 = 262;
    const EPROTONOSUPPORT: i32 = 93;
    const ALLOW: i32 = 1;
    const REFUSE: i32 = 0;
    // SAFETY: the kernel passes a valid context; the field is read as declared.
    if unsafe { core::ptr::read_volatile(&raw const (*ctx.sock).protocol) } != IPPROTO_MPTCP {
        return ALLOW;
    }
    // SAFETY: takes a number; without it the program would see EPERM, which it may not take for "not supported".
    unsafe { bpf_set_retval(-EPROTONOSUPPORT) };
    REFUSE
}
