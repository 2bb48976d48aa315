//! What `/proc/PID` says of a process. Part of it is the process's own words: its name, its command line.

use std::path::PathBuf;

use procfs::{
    FromBufRead as _, FromRead as _, ProcError, ProcResult,
    process::{Stat, Status},
};

use super::{Pid, ProcessError};
use crate::host::{bounded, os_text::OsText, patience};

/// Bytes of a file that lists groups: 65,536 (`NGROUPS_MAX`) are less.
const MOST: u64 = 1 << 20;

/// A file of `/proc/PID` that the kernel writes without waiting for the process.
pub(in crate::host) fn text_of(
    pid: Pid,
    file: &str,
    what: &'static str,
) -> Result<Vec<u8>, ProcessError> {
    let path = format!("/proc/{pid}/{file}");
    bounded::read(path.as_ref(), MOST)
        .map_err(|error| ProcessError::reading(pid, what, error.into()))
}

/// `/proc/PID/stat`.
pub(in crate::host) fn stat(pid: Pid) -> Result<Stat, ProcessError> {
    let what = "the state";
    parse_stat(&text_of(pid, "stat", what)?)
        .map_err(|source| ProcessError::reading(pid, what, source))
}

/// `/proc/PID/status`.
pub(in crate::host) fn status(pid: Pid) -> Result<Status, ProcessError> {
    let what = "the status";
    parse_status(&text_of(pid, "status", what)?)
        .map_err(|source| ProcessError::reading(pid, what, source))
}

/// The library takes the form for granted: the number, the name in parentheses, which may have some itself, the rest.
pub(in crate::host) fn parse_stat(text: &[u8]) -> ProcResult<Stat> {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    let is_whole = text.find('(').zip(text.rfind(')')).is_some_and(|(begin, end)| {
        text[..begin].ends_with(' ') && begin < end && text[end..].starts_with(") ")
    });
    if !is_whole {
        return Err(ProcError::Other("it has not the form of a state".to_owned()));
    }
    Stat::from_read(text.as_bytes())
}

/// A process may call itself anything (`PR_SET_NAME`), also what is no UTF-8: line ends are all that the kernel keeps out.
pub(in crate::host) fn parse_status(text: &[u8]) -> ProcResult<Status> {
    Status::from_buf_read(String::from_utf8_lossy(text).as_bytes())
}

/// The name of a process, as the kernel keeps it: the first 15 bytes of its program's, unless it gave itself another.
pub(in crate::host) fn name(pid: Pid) -> Result<String, ProcessError> {
    stat(pid).map(|stat| stat.comm)
}

/// How many tasks a process is for the kernel: its threads; none if it is gone.
pub fn tasks(pid: Pid) -> u64 {
    status(pid).map_or(0, |status| status.threads)
}

/// Whether a process has ended or is about to: the kernel marks its threads (`PF_EXITING`) before it closes their descriptors,
/// and lets nobody know of its end before it has.
///
/// # Errors
///
/// When that cannot be found out, for example for want of a descriptor.
pub fn is_ending(pid: Pid) -> Result<bool, ProcessError> {
    match stat(pid) {
        // Its first thread may end before the others (`pthread_exit`), which serve on.
        Ok(stat) if is_exiting(&stat) => Ok(living_thread(pid).is_none()),
        Ok(_) => Ok(false),
        Err(ProcessError::Gone { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Who traces a process: it may keep it from ending, even if it was killed (`PTRACE_O_TRACEEXIT`).
pub fn tracer_of(pid: Pid) -> Option<Pid> {
    status(pid).ok().and_then(|status| Pid::new(status.tracerpid))
}

/// Whether a process does nothing until it is told to go on (`SIGCONT`). Of one that cannot be seen nobody knows.
pub fn is_stopped(pid: Pid) -> bool {
    const STOPPED: char = 'T';
    stat(pid).is_ok_and(|stat| stat.state == STOPPED)
}

fn is_exiting(stat: &Stat) -> bool {
    const PF_EXITING: u32 = 0x4;
    stat.flags & PF_EXITING != 0
}

/// The path of what is told of a process by a thread of it that lives: one that has ended has no descriptors any more.
pub(in crate::host) fn living_thread(pid: Pid) -> Option<PathBuf> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut paths = threads.filter_map(|thread| Some(thread.ok()?.path()));
    paths.find(|path| {
        let text = bounded::read(&path.join("stat"), MOST);
        text.ok().and_then(|text| parse_stat(&text).ok()).is_some_and(|stat| !is_exiting(&stat))
    })
}

/// The file name of the program that a process runs, also if the file has been replaced or removed since.
///
/// # Errors
///
/// When the process is gone, or may not be looked at.
pub fn program_of(pid: Pid) -> Result<OsText, ProcessError> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::fs::read_link(format!("/proc/{pid}/exe"))
        .map_err(|error| ProcessError::reading(pid, "the program", error.into()))?;
    let name = path.file_name().unwrap_or_default().as_bytes();
    Ok(OsText::from_bytes(name.strip_suffix(b" (deleted)").unwrap_or(name)))
}

/// The arguments that a process was started with, or gave itself since; empty for a zombie. A process can show any length
/// (`PR_SET_MM_MAP`): what is beyond all that people write is not looked at.
///
/// # Errors
///
/// When the process is gone, or keeps whoever reads them waiting.
pub fn command_line(pid: Pid) -> Result<Vec<OsText>, ProcessError> {
    const MOST: u64 = 128 << 10;
    let bytes = patience::read_beginning(pid, "cmdline", MOST)
        .map_err(|error| ProcessError::reading(pid, "the command line", error.into()))?;
    Ok(words(&bytes))
}

/// The same, if it is whole.
///
/// # Errors
///
/// As [`command_line`], and if it is longer than anybody's.
pub fn whole_command_line(pid: Pid) -> Result<Vec<OsText>, ProcessError> {
    const MOST: u64 = 128 << 10;
    let bytes = patience::read(pid, "cmdline", MOST)
        .map_err(|error| ProcessError::reading(pid, "the command line", error.into()))?;
    Ok(words(&bytes))
}

pub(in crate::host) fn words(command: &[u8]) -> Vec<OsText> {
    let words = command.strip_suffix(b"\0").unwrap_or(command);
    if words.is_empty() {
        return Vec::new();
    }
    words.split(|byte| *byte == 0).map(OsText::from_bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_command_line_is_ours() {
        let words = command_line(Pid::ours()).unwrap();
        assert_eq!(words.len(), std::env::args_os().count());
    }

    #[test]
    fn a_process_may_call_itself_anything() {
        // A shell that names itself by writing to its own `comm`, which is `PR_SET_NAME`.
        let mut child = Command::new("sh")
            .args(["-c", r"printf '\377) R 1\n:\n(' > /proc/$$/comm; echo; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let pid = Pid::new(child.id().cast_signed()).unwrap();
        let (stat, status) = (stat(pid), status(pid));
        drop(child.stdin.take());
        child.wait().unwrap();
        let stat = stat.unwrap();
        assert_eq!((stat.ppid, stat.comm.as_str()), (Pid::ours().get(), "\u{fffd}) R 1\n:\n("));
        assert_eq!(status.unwrap().ppid, Pid::ours().get());
    }

    #[test]
    fn a_state_without_its_form_is_no_state() {
        for text in ["", "()", "1 ()", ") (", "1 (a)", "(a) R", "1 (a) "] {
            assert!(parse_stat(text.as_bytes()).is_err(), "{text}");
        }
    }
}
