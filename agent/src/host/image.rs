//! A program as it was executed once: by it forks of each other are known.

use std::{fs, path::PathBuf};

use super::process::{Pid, ProcessError, stat};

/// A program as it was executed once.
///
/// # Kernel
///
/// Every `execve` places program and stack anew (`ELF_ET_DYN_BASE`, `STACK_TOP`, each by chance), a fork keeps both. Where
/// that is switched off (`randomize_va_space`) all processes of one program look like forks of each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image {
    /// The program's path. One that was installed over has the same.
    pub program: PathBuf,
    /// Where the kernel placed it.
    pub code: u64,
    /// Where the kernel placed its stack.
    pub stack: u64,
}

impl Image {
    /// That of a process.
    ///
    /// # Errors
    ///
    /// When the process is gone, or may not be looked at.
    pub fn of(pid: Pid) -> Result<Self, ProcessError> {
        let program = program(pid)?;
        let stat = stat(pid)?;
        Ok(Self { program, code: stat.startcode, stack: stat.startstack })
    }
}

/// The path of a process's program.
pub(super) fn program(pid: Pid) -> Result<PathBuf, ProcessError> {
    let program = fs::read_link(format!("/proc/{pid}/exe"))
        .map_err(|error| ProcessError::reading(pid, "the program", error.into()))?;
    let text = program.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or(program.clone(), PathBuf::from))
}

/// Whether forks can be told from programs that were executed by themselves.
pub fn tells_forks() -> bool {
    fs::read_to_string("/proc/sys/kernel/randomize_va_space").is_ok_and(|it| it.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_executed_anew_has_another_image() {
        let mut child = std::process::Command::new("/proc/self/exe").arg("--list").spawn().unwrap();
        let pid = Pid::new(child.id().try_into().unwrap()).unwrap();
        let ours = Image::of(Pid::ours()).unwrap();
        assert_eq!(Image::of(Pid::ours()).unwrap(), ours);
        // It may have ended, and is a zombie then: it has no program any more.
        if let Ok(image) = Image::of(pid) {
            assert_ne!(image, ours);
        }
        child.wait().unwrap();
    }
}
