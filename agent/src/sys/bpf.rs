//! The `bpf` system call, where aya has no function for it.

#![expect(unsafe_code, reason = "a system call is reached by its number")]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::libc;

/// The numbers of the `sk_lookup` programs that are attached to a network namespace, in the order in which they run.
///
/// # Errors
///
/// When the kernel does not know such programs, or refuses to say without `CAP_NET_ADMIN`.
#[doc(alias = "BPF_PROG_QUERY")]
pub(crate) fn lookup_programs(network_namespace: impl AsFd) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut query = ProgQuery {
        target_fd: network_namespace.as_fd().as_raw_fd(),
        attach_type: BPF_SK_LOOKUP,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: (&raw mut ids).expose_provenance() as u64,
        prog_cnt: MOST as u32,
        zero: 0,
    };
    // SAFETY: the kernel reads and writes at most the size given of `query`, and `prog_cnt` numbers where `prog_ids` points
    // to; both live until after the call and nobody else refers to them during it.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<ProgQuery>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids.into_iter().take(query.prog_cnt as usize).collect())
}

/// A descriptor of what is pinned at a path.
///
/// # Errors
///
/// When nothing is pinned there, or the kernel refuses.
#[doc(alias = "BPF_OBJ_GET")]
pub(crate) fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    let mut pin =
        Pin { pathname: path.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the kernel reads the size given of `pin`, and the text up to its end where `pathname` points to; both live
    // until after the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw mut pin, size_of::<Pin>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, with close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// Puts another program behind a link: from one packet, bind or socket to the next, without one that meets none.
///
/// # Errors
///
/// When the kernel refuses; the old program then stays. `ENOLINK`: what the link was attached to is gone.
#[doc(alias = "BPF_LINK_UPDATE")]
pub(crate) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut update = LinkUpdate {
        link_fd: link.as_fd().as_raw_fd(),
        new_prog_fd: program.as_fd().as_raw_fd(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the kernel reads the size given of `update`, which lives until after the call and points nowhere.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw mut update, size_of::<LinkUpdate>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The `query` part of `union bpf_attr`, as far as its first version went: every kernel takes a shorter one.
#[repr(C)]
struct ProgQuery {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    zero: u32,
}

/// The part of `union bpf_attr` for pins, as far as its first version went.
#[repr(C)]
struct Pin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The `link_update` part of `union bpf_attr`.
#[repr(C)]
struct LinkUpdate {
    link_fd: i32,
    new_prog_fd: i32,
    flags: u32,
    old_prog_fd: u32,
}

const _: () = assert!(size_of::<ProgQuery>() == 32);
const _: () = assert!(size_of::<Pin>() == 16);
const _: () = assert!(size_of::<LinkUpdate>() == 16);

/// As many as the kernel attaches to one namespace (`netns_bpf_max_progs`).
const MOST: usize = 64;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_SK_LOOKUP: u32 = 36;

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_descriptor_of_anything_else_is_refused() {
        let stranger = File::open("/proc/self/stat").unwrap();
        assert!(lookup_programs(&stranger).is_err());
        assert!(update_link(&stranger, &stranger).is_err());
        assert!(open_pin(c"/proc/self/stat").is_err());
    }
}
