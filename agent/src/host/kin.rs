//! Where a process stands among others, and who it is.

use std::{fs, io, os::unix::fs::MetadataExt as _};

use super::{
    os_text::OsText,
    process::{Pid, ProcessError, command_line, stat, status},
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

/// The children of a process that tell what they are, with their command lines: one that has not executed its program yet may
/// become anything, and one that has ended has no command line.
///
/// # Errors
///
/// When the process is gone.
pub fn told_children(parent: Pid) -> Result<Vec<(Pid, Vec<OsText>)>, ProcessError> {
    let own = command_line(parent).unwrap_or_default();
    let mut told = children(parent)?;
    told.retain(|(_, command)| !command.is_empty() && *command != own);
    Ok(told)
}

/// All children of a process, with their command lines.
///
/// # Errors
///
/// When the process is gone, or its children say more than anybody's.
pub fn children(parent: Pid) -> Result<Vec<(Pid, Vec<OsText>)>, ProcessError> {
    let failed = |error| ProcessError::reading(parent, "the children", error);
    let process = procfs::process::Process::new(parent.get()).map_err(failed)?;
    // Each of its threads has those that it forked.
    let threads = process.tasks().map_err(failed)?.filter_map(Result::ok);
    let numbers = threads.filter_map(|thread| thread.children().ok()).flatten();
    let mut room = ROOM;
    let mut children = Vec::new();
    for pid in numbers.filter_map(|number| Pid::new(number.cast_signed())) {
        let command = command_line(pid).unwrap_or_default();
        let taken = command.iter().map(|word| size_of::<OsText>() + word.as_bytes().len());
        room = room.checked_sub(taken.sum::<usize>()).ok_or_else(|| too_much(parent))?;
        children.push((pid, command));
    }
    Ok(children)
}

fn too_much(parent: Pid) -> ProcessError {
    let message = format!("their command lines have more than {ROOM} bytes together");
    let source = io::Error::new(io::ErrorKind::FileTooLarge, message);
    ProcessError::Unreadable { pid: parent, what: "the children", source }
}

/// For the command lines of all children of a process, which decide how long they are: thousands of usual ones.
const ROOM: usize = 16 << 20;

/// The effective user of a process.
///
/// # Errors
///
/// When the process is gone.
pub fn user_of(pid: Pid) -> Result<u32, ProcessError> {
    status(pid).map(|status| status.euid)
}

/// Whether we live in the machine's own PID namespace, of which all others are part.
pub fn sees_all_processes() -> bool {
    /// `PROC_PID_INIT_INO`
    const MACHINES: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|file| file.ino() == MACHINES)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::{super::process_table::ProcessTable, *};

    #[test]
    fn a_grandchild_descends_from_us() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & echo; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let shell = Pid::new(child.id().try_into().unwrap()).unwrap();
        let found = ProcessTable::read().unwrap().with_descendants(&[shell]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(ancestors(found[1]).unwrap()[..2], [shell, Pid::ours()]);
        assert_eq!(user_of(shell).unwrap(), rustix::process::geteuid().as_raw());
        end(found[1]);
        child.wait().unwrap();
    }

    fn end(pid: Pid) {
        let pid = rustix::process::Pid::from_raw(pid.get()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// `setsid` begins a session; the shell between it and `sleep` ends at once.
    #[test]
    fn an_orphan_descends_from_the_process_that_began_its_session() {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", "(sleep 60 & echo); read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let shell = Pid::new(child.id().try_into().unwrap()).unwrap();
        let orphan = loop {
            let mut found = ProcessTable::read().unwrap().with_descendants(&[shell]);
            found.retain(|it| *it != shell && ancestors(*it).is_ok_and(|it| !it.contains(&shell)));
            if let [orphan] = found[..] {
                break orphan;
            }
            std::thread::yield_now();
        };
        end(orphan);
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    /// Each argument takes a pointer and its length beside it, however short it is.
    #[test]
    fn children_that_say_too_much_are_refused() {
        let script = r#"words=$(printf 'a %.0s' $(seq 60000)); i=0
            while [ $i -lt 16 ]; do sh -c 'echo; read line' $words <&3 & i=$((i+1)); done 3<&0; wait"#;
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Each has written its line when it runs its program.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 16]).unwrap();
        let found = children(Pid::new(child.id().cast_signed()).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        let error = found.unwrap_err();
        assert!(matches!(error, ProcessError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn who_was_executed_anew_is_no_orphan_of_ours() {
        let mut child = Command::new("sleep").arg("66").spawn().unwrap();
        let pid = Pid::new(child.id().try_into().unwrap()).unwrap();
        assert!(!ProcessTable::read().unwrap().orphans_of(&[Pid::ours()]).contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
