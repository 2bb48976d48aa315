//! The two options that let an old listener and a new one have one port.

use core::ffi::c_void;

use agent_ebpf::flow::{SET_REUSE_ADDRESS, SET_REUSE_PORT};
use aya_ebpf::helpers::{bpf_getsockopt, bpf_setsockopt};

const OPTIONS: [(i32, u32); 2] =
    [(SO_REUSEADDR, SET_REUSE_ADDRESS), (SO_REUSEPORT, SET_REUSE_PORT)];

/// Switches both on. Returns those that were off, to be switched off again.
///
/// `socket` is one that its lock is held of, or the context of a program that runs for one.
#[inline(always)]
pub(crate) fn switch_on(socket: *mut c_void) -> u32 {
    let mut changed = 0;
    for (option, bit) in OPTIONS {
        if !is_on(socket, option) && set(socket, option, 1) {
            changed |= bit;
        }
    }
    changed
}

/// Switches these off again.
#[inline(always)]
pub(crate) fn switch_off(socket: *mut c_void, changed: u32) {
    for (option, bit) in OPTIONS {
        if changed & bit != 0 {
            set(socket, option, 0);
        }
    }
}

/// Whether others may have the port too.
#[inline(always)]
pub(crate) fn is_shared(socket: *mut c_void) -> bool {
    is_on(socket, SO_REUSEPORT)
}

#[inline(always)]
fn is_on(socket: *mut c_void, option: i32) -> bool {
    let mut value: i32 = 0;
    // SAFETY: the value is an int of the length given; the socket is locked or the program's own, as the helper demands.
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

const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const SO_REUSEPORT: i32 = 15;
