//! System calls that the agent needs, and that a filter (seccomp) refuses which it was started with, as containers and service
//! managers have them.
//!
//! A filter answers before the kernel does. So each call is made in a way that the kernel answers with a number of its own.

use std::{fmt, fs, io, path::Path};

use rustix::{
    io::Errno,
    thread::{SecureComputingMode, secure_computing_mode},
};

use super::capabilities;
use crate::sys::calls::{BPF, CLONE3, USED, Vain, WAITING};

/// Calls that are refused, by their names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Filtered(Vec<&'static str>);

impl Filtered {
    /// What to do about it.
    pub const FIX: &str = "let it pass: in a container by its profile (`--security-opt seccomp=FILE`, or `unconfined`), in the agent's unit by \
                           `SystemCallFilter=`";
}

impl fmt::Display for Filtered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.join("`, `");
        write!(
            formatter,
            "a filter of system calls (seccomp) refuses `{names}`, without which the agent does not work"
        )
    }
}

/// All that are refused; nothing of who lacks rights, to whom the kernel may say the same.
pub fn filtered() -> Option<Filtered> {
    // One that refuses this, too, is one.
    if secure_computing_mode() == Ok(SecureComputingMode::Disabled) || !has_rights() {
        return None;
    }
    let mut refused = Vec::new();
    if is_refused(&BPF.answer(), knows_bpf) {
        refused.push(BPF.name);
    }
    // To "no such call" the C library answers with the older one.
    if is_refused(&CLONE3.answer(), || false) {
        refused.push(CLONE3.name);
    }
    refused.extend(refused_of(WAITING.into_iter().chain(USED)));
    (!refused.is_empty()).then_some(Filtered(refused))
}

/// Those that are refused of what a command does while it waits: the library that it waits with panics there.
pub fn filtered_of_waiting() -> Option<Filtered> {
    if secure_computing_mode() == Ok(SecureComputingMode::Disabled) {
        return None;
    }
    let refused: Vec<_> = refused_of(WAITING).collect();
    (!refused.is_empty()).then_some(Filtered(refused))
}

fn refused_of(calls: impl IntoIterator<Item = Vain>) -> impl Iterator<Item = &'static str> {
    let refused = calls.into_iter().filter(|call| is_refused(&call.answer(), has_types));
    refused.map(|call| call.name)
}

fn has_rights() -> bool {
    // Who is not told is refused even that.
    capabilities::lacking().map_or(true, |it| it.iter().all(|it| !it.is_needed))
        && agent_terms::users::are_of_the_machine()
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

/// Whether the kernel shows its types, which it has done since 5.4: all of these calls are older. One without them is told of for
/// that.
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
