//! Where a process stands among others, and who it is.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _};

use super::{
    holders::all_pids,
    process::{Pid, ProcessError, command_line, stat},
};

/// The parent of a process, the parent of that, and so on, as far as they can be seen.
///
/// # Errors
///
/// When the process is gone.
pub fn ancestors(pid: Pid) -> Result<Vec<Pid>, ProcessError> {
    // Nobody is nested as deep; it bounds a walk in a table that changes meanwhile.
    const DEEPEST: usize = 256;
    let mut found = Vec::new();
    let mut parent = Pid::new(stat(pid)?.ppid);
    while let Some(next) = parent.filter(|_| found.len() < DEEPEST) {
        found.push(next);
        parent = stat(next).ok().and_then(|stat| Pid::new(stat.ppid));
    }
    Ok(found)
}

/// These processes and all that descend from them by parents that live, in no particular order.
///
/// # Errors
///
/// When the machine's processes cannot be listed.
pub fn with_descendants(pids: &[Pid]) -> Result<Vec<Pid>, ProcessError> {
    let mut children: HashMap<i32, Vec<Pid>> = HashMap::new();
    for pid in all_pids()? {
        // Gone, or not ours to see: then neither are its children.
        if let Ok(stat) = stat(pid) {
            children.entry(stat.ppid).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = pids.to_vec();
    while let Some(pid) = next.pop() {
        if !found.contains(&pid) {
            found.push(pid);
            next.extend(children.remove(&pid.get()).unwrap_or_default());
        }
    }
    Ok(found)
}

/// The master of these workers, which holds nothing itself and replaces those that end: their common parent, of the same
/// user, all of whose children are workers with the same command line. One worker alone does not tell: whoever started it
/// may have nothing to do with it. Nobody above ourselves is a server's master.
///
/// # Errors
///
/// When the machine's processes cannot be listed.
pub fn master_of(workers: &[Pid]) -> Result<Option<Pid>, ProcessError> {
    let [first, _, ..] = workers else { return Ok(None) };
    let parents: Vec<_> = workers.iter().filter_map(|it| Some(stat(*it).ok()?.ppid)).collect();
    let parent = Pid::new(parents[0]).filter(|parent| parent.get() > 1);
    let Some(parent) = parent.filter(|it| parents.iter().all(|other| *other == it.get())) else {
        return Ok(None);
    };
    let command = command_line(*first).unwrap_or_default();
    let is_worker = |pid: &Pid| command_line(*pid).is_ok_and(|words| words == command);
    let of_parent = |pid: &Pid| stat(*pid).is_ok_and(|stat| stat.ppid == parent.get());
    let only_workers =
        !command.is_empty() && all_pids()?.iter().filter(|it| of_parent(it)).all(is_worker);
    let is_above_us = ancestors(Pid::ours())?.contains(&parent);
    let one_user =
        user_of(parent).ok().is_some_and(|user| user_of(*first).is_ok_and(|it| it == user));
    Ok((only_workers && one_user && !is_above_us).then_some(parent))
}

/// The effective user of a process.
///
/// # Errors
///
/// When the process is gone.
pub fn user_of(pid: Pid) -> Result<u32, ProcessError> {
    procfs::process::Process::new(pid.get())
        .and_then(|process| process.status())
        .map(|status| status.euid)
        .map_err(|error| ProcessError::reading(pid, "the status", error))
}

/// Whether we live in the machine's own PID namespace, of which all others are part.
pub fn sees_all_processes() -> bool {
    /// `PROC_PID_INIT_INO`
    const MACHINES: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|file| file.ino() == MACHINES)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_grandchild_descends_from_us() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & echo; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let shell = Pid::new(child.id().try_into().unwrap()).unwrap();
        let found = with_descendants(&[shell]).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(ancestors(found[1]).unwrap()[..2], [shell, Pid::ours()]);
        assert_eq!(user_of(shell).unwrap(), rustix::process::geteuid().as_raw());
        let sleep = rustix::process::Pid::from_raw(found[1].get()).unwrap();
        rustix::process::kill_process(sleep, rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
    }

    /// A shell with children, which ends with all of them when its input does.
    fn family(script: &str) -> (std::process::Child, Pid) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{script}; echo; read line; kill $(jobs -p)")]);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let pid = Pid::new(shell.id().cast_signed()).unwrap();
        (shell, pid)
    }

    #[test]
    fn a_master_is_known_by_several_workers_and_nothing_else_beside_them() {
        for (script, workers, expected) in [
            ("sleep 63 & sleep 63 &", 2, true),
            ("sleep 63 &", 1, false),
            ("sleep 63 & sleep 63 & sleep 64 &", 2, false),
        ] {
            let (mut shell, pid) = family(script);
            let is_worker =
                |it: &Pid| command_line(*it).is_ok_and(|words| words.last() == Some(&"63".into()));
            // They are shells until they execute their program.
            let of_shell = loop {
                let mut of_shell = with_descendants(&[pid]).unwrap();
                let all = 1 + workers + usize::from(script.contains("64"));
                let complete = of_shell.len() == all;
                of_shell.retain(is_worker);
                if complete && of_shell.len() == workers {
                    break of_shell;
                }
                std::thread::yield_now();
            };
            assert_eq!(master_of(&of_shell).unwrap(), expected.then_some(pid), "{script}");
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    #[test]
    fn nobody_above_us_is_a_master() {
        let mut children = [0, 1].map(|_| Command::new("sleep").arg("65").spawn().unwrap());
        let pids = children.each_ref().map(|it| Pid::new(it.id().cast_signed()).unwrap());
        assert_eq!(master_of(&pids).unwrap(), None);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
