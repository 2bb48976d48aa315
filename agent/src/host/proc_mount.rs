//! Whether `/proc` shows what the agent reads there.
//!
//! `hidepid` hides nothing from who has CAP_SYS_PTRACE, which the agent needs anyway (`has_pid_permissions`).

use std::{fs, io, path::Path};

use rustix::fs::{PROC_SUPER_MAGIC, statfs};

/// What is wrong with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcMountError {
    /// Nothing is there, or something else.
    #[error("`/proc` is not mounted")]
    NotMounted,
    /// Its numbers of processes are not those that system calls take here.
    #[error("`/proc` shows the processes of another PID namespace")]
    OtherNamespace,
    /// `subset=pid`.
    #[error("`/proc` shows nothing but processes (`subset=pid`)")]
    ProcessesOnly,
    /// Something is mounted there.
    #[error("`/proc/sys` does not show the settings of the kernel (`{BOOT}`)")]
    Covered,
}

/// A setting that the agent reads.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

impl ProcMountError {
    /// What to do about it.
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::NotMounted => "mount it: `mount -t proc proc /proc`",
            Self::OtherNamespace => {
                "mount the one of this PID namespace, `mount -t proc proc /proc`, or start the agent in the one that is shown"
            }
            Self::ProcessesOnly => {
                "mount all of it, `mount -t proc proc /proc`; in the agent's unit `ProcSubset=all`"
            }
            Self::Covered => {
                "take away what is mounted there, `umount /proc/sys`; in a container, let it see them"
            }
        }
    }
}

/// Looks at it.
///
/// # Errors
///
/// When the agent would miss something there.
pub fn examine() -> Result<(), ProcMountError> {
    if !statfs("/proc").is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC) {
        return Err(ProcMountError::NotMounted);
    }
    is_ours(fs::read_link("/proc/self"), std::process::id())?;
    match (Path::new("/proc/sys").exists(), fs::read(BOOT)) {
        (false, _) => Err(ProcMountError::ProcessesOnly),
        (true, Err(_)) => Err(ProcMountError::Covered),
        (true, Ok(_)) => Ok(()),
    }
}

/// The number that it has for whoever asks; none where that process is in no namespace of it (`proc_self_get_link`).
fn is_ours(shown: io::Result<std::path::PathBuf>, pid: u32) -> Result<(), ProcMountError> {
    match shown.is_ok_and(|shown| shown.as_os_str() == pid.to_string().as_str()) {
        true => Ok(()),
        false => Err(ProcMountError::OtherNamespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_one_that_is_ours() {
        assert_eq!(examine(), Ok(()));
        assert_eq!(is_ours(Ok("17".into()), 1), Err(ProcMountError::OtherNamespace));
        let nobody = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(is_ours(Err(nobody), 1), Err(ProcMountError::OtherNamespace));
    }
}
