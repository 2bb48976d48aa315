//! System calls that the agent needs, and that a filter (seccomp) refuses which it was started with, as containers and service
//! managers have them.
//!
//! A filter answers before the kernel does. So each call is made in a way that the kernel answers with a number of its own.

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::Path,
};

use rustix::{
    io::Errno,
    thread::{CapabilitySet, SecureComputingMode, capabilities, secure_computing_mode},
};

use crate::sys::{
    aside::aside,
    calls::{
        BPF, BY_NAME, CAPBSET_DROP, CLONE3, COMMANDS, KEYCTL, LASTING, LAUNCHING, SETGROUPS, USED,
        Vain, WAITING,
    },
};

/// Calls that are refused, by their names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Filtered(Vec<&'static str>);

impl Filtered {
    /// What to do about it.
    pub const FIX: &str = "let it pass: in a container by its profile (`--security-opt seccomp=FILE`, or `unconfined`), in the agent's unit by \
                           `SystemCallFilter=`";

    /// The same for what is refused here: families of sockets have a setting of their own.
    pub fn fix(&self) -> String {
        let families = self.0.iter().any(|name| name.starts_with("socket(AF_"));
        let setting =
            if families { ", families of sockets by `RestrictAddressFamilies=`" } else { "" };
        format!("{}{setting}", Self::FIX)
    }
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

/// Whose the filter is that servers are started under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launches {
    /// Ours: the launcher inherits it.
    Ours,
    /// The service manager's, which starts the launcher.
    Others,
}

/// All that are refused; nothing of who lacks rights, to whom the kernel may say the same. The caller has one thread.
pub fn filtered(launches: Launches) -> Option<Filtered> {
    // One that refuses this, too, is one.
    if secure_computing_mode() == Ok(SecureComputingMode::Disabled) || !has_rights() {
        return None;
    }
    let mut refused = Vec::new();
    if is_refused(BPF, knows_bpf) {
        refused.push(BPF.name);
    }
    // To "no such call" the C library answers with the older one.
    if is_refused(CLONE3, || false) {
        refused.push(CLONE3.name);
    }
    // A kernel without keys has no such call.
    if launches == Launches::Ours && is_refused(KEYCTL, || false) {
        refused.push(KEYCTL.name);
    }
    let of_launches = match launches {
        Launches::Ours => &LAUNCHING[..],
        Launches::Others => &[],
    };
    let calls = WAITING
        .iter()
        .chain(&USED)
        .chain(&BY_NAME)
        .chain(&COMMANDS)
        .chain(of_launches)
        .chain(with_capabilities(launches));
    refused.extend(refused_of(calls));
    if launches == Launches::Ours {
        refused.extend(refused_elsewhere(&LASTING));
    }
    // One that refuses a call refuses it whatever it is made with.
    let all = refused.clone();
    let is_told = |name: &str| name.split_once('(').is_some_and(|(call, _)| all.contains(&call));
    refused.retain(|name| !is_told(name));
    (!refused.is_empty()).then_some(Filtered(refused))
}

/// Those that are refused of what a command does while it waits: the library that it waits with panics there.
pub fn filtered_of_waiting() -> Option<Filtered> {
    if secure_computing_mode() == Ok(SecureComputingMode::Disabled) {
        return None;
    }
    let refused: Vec<_> = refused_of(&WAITING).collect();
    (!refused.is_empty()).then_some(Filtered(refused))
}

fn refused_of<'a>(calls: impl IntoIterator<Item = &'a Vain>) -> impl Iterator<Item = &'static str> {
    calls.into_iter().filter(|call| is_refused(**call, has_types)).map(|call| call.name)
}

/// Those that a copy of this process is refused. Where there can be none, that is told of by itself.
fn refused_elsewhere(calls: &'static [Vain]) -> Vec<&'static str> {
    let told = aside(|mut out| {
        for name in refused_of(calls) {
            // Our other half reads; whoever is refused even this is told of by another call.
            let _: io::Result<()> = writeln!(out, "{name}");
        }
    });
    let bytes = told.map(|told| told.bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let is_told = |call: &&Vain| text.lines().any(|line| line == call.name);
    calls.iter().filter(is_told).map(|call| call.name).collect()
}

/// Calls that the kernel looks at only for who has a capability.
fn with_capabilities(launches: Launches) -> impl Iterator<Item = &'static Vain> {
    let ours = capabilities(None).map_or(CapabilitySet::empty(), |it| it.effective);
    let launching = launches == Launches::Ours;
    let calls = [
        (&CAPBSET_DROP, CapabilitySet::SETPCAP, true),
        (&SETGROUPS, CapabilitySet::SETGID, launching),
    ];
    calls
        .into_iter()
        .filter(move |(_, takes, is_made)| ours.contains(*takes) && *is_made)
        .map(|it| it.0)
}

fn has_rights() -> bool {
    // Who is not told is refused even that.
    super::capabilities::lacking().map_or(true, |it| it.iter().all(|it| !it.is_needed))
        && agent_terms::users::are_of_the_machine()
}

fn is_refused(call: Vain, is_in_kernel: impl Fn() -> bool) -> bool {
    let no_family = Some(Errno::AFNOSUPPORT.raw_os_error());
    let is_fine = |it: &io::Error| call.is_of_no_family && it.raw_os_error() == no_family;
    let answer = call.answer().filter(|answer| !is_fine(answer));
    answer.is_some_and(|answer| is_of_a_filter(&answer, is_in_kernel))
}

/// Whatever the kernel would not say to a call in vain. What it says where something has run out is left to who makes the call in
/// earnest.
fn is_of_a_filter(answer: &io::Error, is_in_kernel: impl Fn() -> bool) -> bool {
    const OF_THE_KERNEL: [Errno; 4] = [Errno::BADF, Errno::FAULT, Errno::INVAL, Errno::TOOBIG];
    const RUN_OUT: [Errno; 6] =
        [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::AGAIN, Errno::INTR];
    match Errno::from_io_error(answer) {
        Some(Errno::NOSYS) => is_in_kernel(),
        Some(other) => !OF_THE_KERNEL.contains(&other) && !RUN_OUT.contains(&other),
        None => false,
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
        let refused = |errno: Errno, known: bool| is_of_a_filter(&errno.into(), || known);
        assert!(refused(Errno::PERM, false) && refused(Errno::NOSYS, true));
        assert!(refused(Errno::AFNOSUPPORT, false) && refused(Errno::NODEV, false));
        assert!(!refused(Errno::TOOBIG, true) && !refused(Errno::NOSYS, false));
        assert!(!refused(Errno::NFILE, true));
    }
}
