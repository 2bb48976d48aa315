//! Process 1 of a PID namespace: when it ends, the kernel kills every process of the namespace (`zap_pid_ns_processes`).

use std::fs;

use super::{
    os_text::OsText,
    process::{Pid, ProcessError, name, program_of, stat, status},
};

/// What follows from the end of a process for its PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceEnd {
    /// It goes on.
    Spared,
    /// It ends too if this process 1, which started the other one, waits for no more than that.
    Likely(Pid),
    /// It ends too, with this process 1.
    Certain(Pid),
}

/// What the end of this process means for its PID namespace.
///
/// # Errors
///
/// When a process cannot be looked at.
pub fn end_with(pid: Pid) -> Result<NamespaceEnd, ProcessError> {
    let mut process = pid;
    let mut through_wrapper = false;
    loop {
        if number_inside(process)? == INIT {
            return Ok(NamespaceEnd::Certain(process));
        }
        let Some(parent) = parent_inside(process)? else { return Ok(NamespaceEnd::Spared) };
        let known = name(parent)?;
        if number_inside(parent)? == INIT {
            // What put itself into the background has a session of its own, and got process 1 for a parent later.
            let is_its_child = !GENERAL.contains(&known.as_str()) && same_session(process, parent)?;
            return Ok(match ONE_CHILD.contains(&known.as_str()) && !through_wrapper {
                true => NamespaceEnd::Certain(parent),
                false if is_its_child => NamespaceEnd::Likely(parent),
                false => NamespaceEnd::Spared,
            });
        }
        if !is_wrapper(parent, &known) || !same_session(process, parent)? {
            return Ok(NamespaceEnd::Spared);
        }
        (process, through_wrapper) = (parent, true);
    }
}

/// Whether two processes live in one PID namespace.
///
/// # Errors
///
/// When one cannot be looked at.
pub fn share_pid_namespace(one: Pid, other: Pid) -> Result<bool, ProcessError> {
    let namespace = |pid: Pid| {
        fs::read_link(format!("/proc/{pid}/ns/pid"))
            .map_err(|error| ProcessError::reading(pid, "the namespaces", error.into()))
    };
    Ok(namespace(one)? == namespace(other)?)
}

/// Whether all others of its PID namespace end with a process.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn is_first_inside(pid: Pid) -> Result<bool, ProcessError> {
    Ok(number_inside(pid)? == INIT)
}

/// The number of a process in its own PID namespace.
fn number_inside(pid: Pid) -> Result<i32, ProcessError> {
    let inside = status(pid)?.nspid.and_then(|numbers| numbers.last().copied());
    Ok(inside.unwrap_or(pid.get()))
}

/// The parent, if it lives in the same PID namespace. It may live in one above, and only there, if its child was put in from
/// outside: it has fewer numbers then. The namespaces themselves may be hidden from us, as those of process 1 often are.
fn parent_inside(pid: Pid) -> Result<Option<Pid>, ProcessError> {
    let numbers = |pid: Pid| status(pid).map(|status| status.nspid.map_or(1, |it| it.len()));
    match Pid::new(stat(pid)?.ppid) {
        Some(parent) if numbers(pid)? == numbers(parent)? => Ok(Some(parent)),
        Some(_) | None => Ok(None),
    }
}

/// A script goes by its own name, and runs in a shell all the same.
fn is_wrapper(pid: Pid, name: &str) -> bool {
    let runs =
        |program: OsText| program.as_os_str().to_str().is_some_and(|it| WRAPPERS.contains(&it));
    WRAPPERS.contains(&name) || program_of(pid).is_ok_and(runs)
}

fn same_session(one: Pid, other: Pid) -> Result<bool, ProcessError> {
    Ok(stat(one)?.session == stat(other)?.session)
}

const INIT: i32 = 1;

/// Those that outlive what they started.
const GENERAL: &[&str] = &[
    "systemd",
    "init",
    "s6-svscan",
    "runit",
    "runsvdir",
    "supervisord",
    "openrc-init",
    "dinit",
    "pause",
];

/// Those that end with the one child that they were started for.
const ONE_CHILD: &[&str] = &["tini", "docker-init", "dumb-init", "catatonit", "podman-init"];

/// Those that usually end with the server that they started.
const WRAPPERS: &[&str] = &["sh", "bash", "dash", "ash", "su", "sudo", "npm", "yarn", "pnpm"];
