//! System calls that the agent needs, and that a filter (seccomp) refuses which it was started with, as containers and service
//! managers have them.
//!
//! A filter answers before the kernel does. So each call is made in a way that the kernel answers with a number of its own.

use std::{fs, io, path::Path};

use rustix::{
    io::Errno,
    process::{PidfdFlags, getpid, pidfd_open},
    thread::{SecureComputingMode, secure_computing_mode},
};

use super::capabilities;
use crate::sys::bpf;

/// A call that is refused.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a filter of system calls (seccomp) refuses `{name}`: without it {lost}")]
pub struct Filtered {
    name: &'static str,
    lost: &'static str,
}

impl Filtered {
    /// What to do about it.
    pub const FIX: &str = "let it pass: in a container by its profile (`--security-opt seccomp=FILE`, or `unconfined`), in the agent's unit by \
                           `SystemCallFilter=`";
}

/// The first that is refused; nothing of who lacks rights, to whom the kernel may say the same.
pub fn filtered() -> Option<Filtered> {
    let has_rights = capabilities::lacking().is_ok_and(|it| it.iter().all(|it| !it.is_needed));
    let is_filtered = secure_computing_mode() == Ok(SecureComputingMode::Filter);
    if !is_filtered || !has_rights || !capabilities::are_of_the_machine() {
        return None;
    }
    if is_refused(&bpf::refusal(), knows_bpf) {
        return Some(Filtered { name: "bpf", lost: "no kernel program can be loaded" });
    }
    let opened = pidfd_open(getpid(), PidfdFlags::empty());
    if opened.is_err_and(|error| is_refused(&error.into(), has_types)) {
        return Some(Filtered { name: "pidfd_open", lost: "no process can be held" });
    }
    None
}

/// Filters have two answers. One of them is that of a kernel without the call, too.
fn is_refused(answer: &io::Error, is_in_kernel: impl Fn() -> bool) -> bool {
    match Errno::from_io_error(answer) {
        Some(Errno::PERM | Errno::ACCESS) => true,
        Some(Errno::NOSYS) => is_in_kernel(),
        _ => false,
    }
}

/// Whether the kernel was built with `CONFIG_BPF_SYSCALL`, of which this file system is a part (`kernel/bpf/inode.c`).
fn knows_bpf() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some("bpf"))
}

/// Whether the kernel shows its types, which it has done since 5.4, one release after it got `pidfd_open`. One without them is told
/// of for that.
fn has_types() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_kernel_is_told_from_that_of_a_filter() {
        let refused = |errno: Errno, known: bool| is_refused(&errno.into(), || known);
        assert!(refused(Errno::PERM, false) && refused(Errno::NOSYS, true));
        assert!(!refused(Errno::TOOBIG, true) && !refused(Errno::NOSYS, false));
    }
}
