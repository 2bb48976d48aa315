//! Rights that a process has from the file of its program, and not from who started it.
//!
//! Anybody may execute a set-user-ID or set-group-ID program, with arguments, an environment and open files of his own: such a process is
//! more than he is, and shows what he gave it.

use std::{fs, os::unix::fs::MetadataExt as _};

use procfs::process::Status;

use super::{
    patience::{self, Whose},
    process::{Pid, ProcessError, status},
};

/// Refuses a process whose rights are not those that it was started with.
///
/// # Errors
///
/// [`ProcessError::SetId`] if that is so, and when it cannot be looked at.
///
/// # Kernel
///
/// The execution of such a program changes the effective and saved numbers and leaves the real ones (`bprm_fill_uid`), until the program
/// itself makes them equal. That its rights were changed stays in its auxiliary vector (`AT_SECURE`), which security modules set too when
/// they let a program change its label: so it counts only where the file has such a bit.
pub(super) fn refuse(pid: Pid) -> Result<(), ProcessError> {
    let ids = status(pid)?;
    let by_file = || Ok::<_, ProcessError>(has_bit(pid)? && is_secure(pid)?);
    match differ(&ids) || by_file()? {
        true => Err(ProcessError::SetId { pid, real: ids.ruid, effective: ids.euid }),
        false => Ok(()),
    }
}

/// Root may lower itself for a while, and is root all the same.
fn differ(ids: &Status) -> bool {
    const ROOT: u32 = 0;
    let Status { ruid, euid, suid, fuid, rgid, egid, sgid, fgid, .. } = *ids;
    let users = [euid, suid, fuid].iter().any(|it| *it != ruid);
    let groups = [egid, sgid, fgid].iter().any(|it| *it != rgid);
    ruid != ROOT && (users || groups)
}

/// Whether the file of its program has such a bit. It may be on a file system of the process's own, which does not answer.
fn has_bit(pid: Pid) -> Result<bool, ProcessError> {
    const SET_ID: u32 = 0o6000;
    let look = move || fs::metadata(format!("/proc/{pid}/exe")).map(|file| file.mode());
    let mode = patience::with(Whose::Process(pid), look).and_then(|looked| looked);
    mode.map(|mode| mode & SET_ID != 0)
        .map_err(|error| ProcessError::reading(pid, "the program", error.into()))
}

fn is_secure(pid: Pid) -> Result<bool, ProcessError> {
    const MOST: u64 = 4 << 10;
    let bytes = patience::read(pid, "auxv", MOST)
        .map_err(|error| ProcessError::reading(pid, "the auxiliary vector", error.into()))?;
    Ok(secure(&bytes))
}

/// `AT_SECURE` of an auxiliary vector: pairs of words, which a program of 32 bits has in half the size.
fn secure(auxiliary: &[u8]) -> bool {
    const AT_SECURE: u64 = 23;
    let wide = words::<8>(auxiliary, u64::from_ne_bytes);
    let narrow = words::<4>(auxiliary, |word| u64::from(u32::from_ne_bytes(word)));
    let of = |words: &[u64]| {
        let pairs = words.chunks_exact(2);
        pairs.map(|pair| (pair[0], pair[1])).find(|(kind, _)| *kind == AT_SECURE)
    };
    of(&wide).or_else(|| of(&narrow)).is_some_and(|(_, value)| value != 0)
}

fn words<const SIZE: usize>(bytes: &[u8], word: impl Fn([u8; SIZE]) -> u64) -> Vec<u64> {
    bytes.as_chunks().0.iter().copied().map(word).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
        process::{Child, Command, Stdio},
    };

    use super::*;

    const USER: u32 = 65_534;

    fn sleeping(program: &std::path::Path) -> Child {
        // It says a line when it has been executed.
        let mut command = Command::new(program);
        command.args(["-c", "echo; read line"]).gid(USER).uid(USER);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        child
    }

    fn refused(program: &std::path::Path) -> bool {
        let mut child = sleeping(program);
        let pid = Pid::new(child.id().try_into().unwrap()).unwrap();
        let refused = refuse(pid);
        drop(child.stdin.take());
        child.wait().unwrap();
        match refused {
            Ok(()) => false,
            Err(ProcessError::SetId { .. }) => true,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn whoever_executes_a_set_id_program_is_refused_and_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("shell");
        fs::copy("/bin/sh", &program).unwrap();
        for (mode, is_refused) in [(0o755, false), (0o4755, true), (0o2755, true)] {
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(refused(&program), is_refused, "{mode:o}");
        }
        assert!(refuse(Pid::ours()).is_ok());
    }

    #[test]
    fn one_that_makes_its_numbers_equal_is_known_by_its_file() {
        let vector = |secure: u64| [3_u64, 64, 23, secure, 0, 0].map(u64::to_ne_bytes).concat();
        assert!(secure(&vector(1)));
        assert!(!secure(&vector(0)));
        let narrow = |secure: u32| [3_u32, 64, 23, secure, 0, 0].map(u32::to_ne_bytes).concat();
        assert!(secure(&narrow(1)));
        assert!(!secure(&narrow(0)));
        assert!(!secure(&[]));
    }
}
