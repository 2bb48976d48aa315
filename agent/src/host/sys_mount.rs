//! Whether `/sys` shows the kernel: its types, and the places where its file systems are mounted.

use std::path::Path;

use rustix::fs::statfs;

use super::mounts;

/// Nothing is there, or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sysfs is not mounted at `/sys`")]
pub struct NoSysfs;

impl NoSysfs {
    /// What to do about it.
    pub const FIX: &str = "mount it, and what belongs below it: `mount -t sysfs sysfs /sys`, then see `agent doctor` again";
}

/// Looks at it.
///
/// # Errors
///
/// When the agent would miss something there.
pub fn examine() -> Result<(), NoSysfs> {
    let is_sysfs = statfs("/sys").is_ok_and(|found| found.f_type as u64 == SYSFS_MAGIC);
    // Parts of it may be shown alone.
    match is_sysfs || Path::new("/sys/kernel").is_dir() {
        true => Ok(()),
        false => Err(NoSysfs),
    }
}

/// What to do where something hides the types that the kernel would show.
pub fn what_hides_types() -> Option<String> {
    let hides = |point: &&Path| mounts::is_mounted(point);
    let places = ["/sys/kernel/btf/vmlinux", "/sys/kernel/btf", "/sys/kernel"];
    let point = places.iter().map(Path::new).find(hides)?.display();
    Some(format!("`umount {point}`: something is mounted there and hides the kernel's types"))
}

/// `SYSFS_MAGIC` (`linux/magic.h`).
const SYSFS_MAGIC: u64 = 0x6265_6572;
