//! The kernel programs. See ARCHITECTURE.md for the path of one SYN through them.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "atomic operations, see `track_flows::add`")]
#![allow(
    unsafe_code,
    reason = "kernel helpers and map values are reached by pointer; each block says why it is sound"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "the macros that make programs pass the context by value"
)]

mod adopt_flow;
mod adopt_listeners;
mod connection;
mod follow_processes;
mod iteration;
mod kernel;
mod list_processes;
mod list_sockets;
mod maps;
mod migrate;
mod public_port;
mod refuse_multipath;
mod report;
mod share_bind;
mod sharing;
mod steer;
mod track_flows;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier admits no program that could get here.
    loop {}
}

/// Needed for the helpers that the kernel gives only to GPL-compatible programs; this project is MIT or Apache-2.0, and
/// MIT combined with the kernel's GPL is compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
