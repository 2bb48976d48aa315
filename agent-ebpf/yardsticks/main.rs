//! What the guards on cost measure with (`tests/tests/costs`), and what steers beside the agent in tests. The agent has none of it inside.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic addition, which core hides for this target")]
#![allow(unsafe_code, reason = "kernel helpers and map values are reached by pointer")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "the macros that make programs pass the context by value"
)]

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::read_volatile,
};

use aya_ebpf::{
    bindings::{bpf_pidns_info, sk_action::SK_PASS},
    helpers::generated::bpf_get_ns_current_pid_tgid,
    macros::{map, raw_tracepoint, sk_lookup},
    maps::{Array, HashMap, SockMap},
    programs::{RawTracePointContext, SkLookupContext},
};

/// As large as `SERVICES`, and with as small a key.
#[map]
static TABLE: HashMap<u32, u64> = HashMap::with_max_entries(1024, 0);

/// How often the process made each system call, by the call's number.
#[map]
static CALLS: Array<u64> = Array::with_max_entries(512, 0);

/// The process whose calls are counted, as its own process namespace numbers it, and that namespace. Set by the loader.
#[unsafe(no_mangle)]
static PROCESS: u32 = 0;
#[unsafe(no_mangle)]
static NAMESPACE_DEVICE: u64 = 0;
#[unsafe(no_mangle)]
static NAMESPACE_INODE: u64 = 0;

/// What a run costs that does nothing.
#[sk_lookup]
fn nothing(_ctx: SkLookupContext) -> u32 {
    SK_PASS
}

/// What a run costs that looks up the same small key eight times.
#[sk_lookup]
fn eight_lookups(_ctx: SkLookupContext) -> u32 {
    let mut found = 0;
    for _ in 0..8 {
        // SAFETY: RCU keeps the element while the program runs.
        found += u32::from(unsafe { TABLE.get(1) }.is_some());
    }
    if found == 8 { SK_PASS } else { 0 }
}

/// A listener of another steering program.
#[map]
static CHOSEN: SockMap = SockMap::with_max_entries(1, 0);

/// Steers every connection to that listener, as others' programs do.
#[sk_lookup]
fn foreign(ctx: SkLookupContext) -> u32 {
    // Without a listener in the map it is as if it were not there.
    let _chosen = CHOSEN.redirect_sk_lookup(&ctx, 0, 0);
    SK_PASS
}

/// Counts the system calls of one process.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn count_calls(ctx: RawTracePointContext) -> i32 {
    let mut current = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: statics of this object, which live in a read-only map; plain reads would be folded to zero.
    let (process, device, inode) = unsafe {
        (
            read_volatile(&raw const PROCESS),
            read_volatile(&raw const NAMESPACE_DEVICE),
            read_volatile(&raw const NAMESPACE_INODE),
        )
    };
    let size = size_of::<bpf_pidns_info>() as u32;
    // SAFETY: the helper writes as many bytes as it is told of a value of ours.
    let failed = unsafe { bpf_get_ns_current_pid_tgid(device, inode, &raw mut current, size) };
    if failed == 0
        && current.tgid == process
        && let Some(count) = CALLS.get_ptr_mut(ctx.arg::<u64>(1) as u32)
    {
        // SAFETY: a map value: aligned, alive, and shared with other CPUs only through atomics.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1) };
    }
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier admits no program that could get here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
