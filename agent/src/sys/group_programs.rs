//! Programs that are attached to control groups, by the `bpf` system call.

#![expect(unsafe_code, reason = "a system call is reached by its number")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::libc;

use super::bpf;

/// The numbers of the programs that are asked about what the processes of a group do, in the order in which they run: its own, and
/// those of groups above.
///
/// # Errors
///
/// `EINVAL` when the kernel does not know that kind, or takes none.
#[doc(alias = "BPF_PROG_QUERY")]
pub(crate) fn effective(group: impl AsFd, attach_type: u32) -> io::Result<Vec<u32>> {
    bpf::query(group, attach_type, BPF_F_QUERY_EFFECTIVE)
}

/// A descriptor of a loaded program.
///
/// # Errors
///
/// `ENOENT` when there is none of this number any more.
#[doc(alias = "BPF_PROG_GET_FD_BY_ID")]
pub(crate) fn by_id(id: u32) -> io::Result<OwnedFd> {
    let which = [id, 0, 0];
    // SAFETY: the kernel reads the size given of `which`, which lives until after the call.
    let result = unsafe {
        let size = size_of_val(&which);
        libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw const which, size)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// What a program is called, as far as the kernel remembers: 15 bytes.
///
/// # Errors
///
/// When it is no program.
#[doc(alias = "BPF_OBJ_GET_INFO_BY_FD")]
pub(crate) fn name(program: impl AsFd) -> io::Result<String> {
    let mut info = ProgInfo { before: [0; 64], name: [0; 16] };
    let mut query = InfoQuery {
        bpf_fd: program.as_fd().as_raw_fd(),
        info_len: size_of::<ProgInfo>() as u32,
        info: (&raw mut info).expose_provenance() as u64,
    };
    // SAFETY: the kernel reads the size given of `query`, and writes at most `info_len` bytes where `info` points to; both live
    // until after the call and nobody else refers to them during it. What it reads of `info` is zero: no room for instructions.
    let result = unsafe {
        let size = size_of::<InfoQuery>();
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut query, size)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Attaches a program to a group behind those that are attached to it, for as long as the group is there.
///
/// # Errors
///
/// When the kernel refuses: `EPERM` below a group whose program allows no others, `EINVAL` for one of another kind.
#[doc(alias = "BPF_PROG_ATTACH")]
pub(crate) fn attach(group: impl AsFd, program: impl AsFd, attach_type: u32) -> io::Result<()> {
    let attach = ProgAttach {
        target_fd: group.as_fd().as_raw_fd(),
        attach_bpf_fd: program.as_fd().as_raw_fd(),
        attach_type,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the size given of `attach`, which lives until after the call and points nowhere.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<ProgAttach>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The part of `union bpf_attr` for `BPF_PROG_ATTACH`, as far as its first version went, and the flags of the second.
#[repr(C)]
struct ProgAttach {
    target_fd: i32,
    attach_bpf_fd: i32,
    attach_type: u32,
    attach_flags: u32,
}

/// The `info` part of `union bpf_attr`.
#[repr(C)]
struct InfoQuery {
    bpf_fd: i32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info` as far as the name.
#[repr(C)]
struct ProgInfo {
    before: [u8; 64],
    name: [u8; 16],
}

const _: () = assert!(size_of::<ProgAttach>() == 16);
const _: () = assert!(size_of::<InfoQuery>() == 16);
const _: () = assert!(size_of::<ProgInfo>() == 80);

const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
const BPF_F_ALLOW_MULTI: u32 = 2;

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_descriptor_of_anything_else_is_refused() {
        let stranger = File::open("/proc/self/stat").unwrap();
        assert!(effective(&stranger, 6).is_err());
        assert!(name(&stranger).is_err());
        assert!(attach(&stranger, &stranger, 6).is_err());
        assert!(by_id(u32::MAX).is_err());
    }
}
