//! What a starter has for children.

use std::{fs, path::PathBuf};

use super::super::{
    kin::children,
    os_text::OsText,
    process::{Pid, ProcessError, command_line},
};

/// What a starter has for children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The server, started again: born after it, and not known.
    pub again: Vec<Pid>,
    /// All that are the server, known or not.
    pub servers: Vec<Pid>,
    /// Others. One may be the server in a moment: what starts it executes one program after the other.
    pub others: Vec<Pid>,
    /// Whether those that read what the server writes are there.
    pub is_whole: bool,
}

/// What a process has for children beside one: who reads what that writes, and whether there are others.
pub(super) fn children_beside(
    parent: Pid,
    child: Pid,
) -> Result<(Vec<Vec<OsText>>, bool), ProcessError> {
    let end = |pid: Pid, number: u32| fs::read_link(format!("/proc/{pid}/fd/{number}")).ok();
    let is_pipe = |path: &PathBuf| path.to_string_lossy().starts_with("pipe:");
    let written: Vec<_> =
        [1, 2].into_iter().filter_map(|it| end(child, it)).filter(is_pipe).collect();
    // While the server runs nobody sleeps until the next start; and who has executed nothing is a job of the parent's own.
    let mut others = children(parent)?;
    // Others with its command line are more workers.
    let own = command_line(child)?;
    others.retain(|(pid, command)| *pid != child && *command != own && !command.is_empty());
    let reads = |pid: Pid| end(pid, 0).is_some_and(|it| written.contains(&it));
    let (readers, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|(pid, _)| reads(*pid));
    let is_busy = !others.is_empty() || readers.iter().any(|(_, it)| !is_written_down(it));
    Ok((readers.into_iter().map(|(_, command)| command).collect(), is_busy))
}

/// It does nothing but wait between two starts.
pub(super) fn is_sleep(command: &[OsText]) -> bool {
    let program = command.first().map(|it| PathBuf::from(it.as_os_str()));
    program.is_some_and(|it| it.file_name() == Some("sleep".as_ref()))
}

/// What no server has as its command line is not believed, nor remembered.
pub(super) fn is_written_down(command: &[OsText]) -> bool {
    const MOST: usize = 32 << 10;
    command.iter().map(|it| it.as_bytes().len()).sum::<usize>() <= MOST
}
