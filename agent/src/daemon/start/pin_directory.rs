//! The directory that pins are in, as far as it can be judged before anything is made, and the file system that it is on.

use std::{ffi::OsStr, path::Path};

use agent_api::{Problem, ProblemKind};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};

use crate::{datapath, host::mounts};

/// What keeps pins from being in this directory. Nothing is made.
///
/// # Errors
///
/// When the BPF file system takes no such name, begins right there, or is elsewhere.
pub fn examine_pin_directory(pin_dir: &Path) -> Result<(), Problem> {
    let shown = pin_dir.display();
    let refused = |message, fix| Err(Problem::new(ProblemKind::Preflight, message).fix(fix));
    if let Some(name) = datapath::impossible_name(pin_dir) {
        let message = format!(
            "the pin directory `{shown}` cannot be made: the BPF file system takes no name with a dot, as `{}` is",
            name.display()
        );
        return refused(message, "name one without (`--pin-dir`)".to_owned());
    }
    if let Some(most) = too_long(pin_dir) {
        let message = format!(
            "the pin directory `{shown}` cannot be made: its name has more than {most} bytes"
        );
        return refused(message, "name a shorter one (`--pin-dir`)".to_owned());
    }
    let place = pin_dir.ancestors().find(|place| place.exists()).unwrap_or(pin_dir);
    match datapath::is_bpf(place) {
        // It would go with the last service, which the kernel does not let go (EBUSY).
        true if place == pin_dir && mounts::is_mounted(place) => refused(
            format!(
                "`{shown}` is where the BPF file system is mounted, and the agent needs a directory of its own in it"
            ),
            format!("name one below it, as `{shown}/agent` (`--pin-dir`)"),
        ),
        true => Ok(()),
        false if is_mounted_at_start(pin_dir) => Ok(()),
        false => refused(
            format!("pins cannot be in `{shown}`: `{}` is no BPF file system", place.display()),
            how_to_mount(pin_dir),
        ),
    }
}

/// The most that a name, or a path, may have, where this one has more (`NAME_MAX`, `PATH_MAX`). The agent's own names follow.
fn too_long(pin_dir: &Path) -> Option<usize> {
    const NAME: usize = 255;
    const PATH: usize = 4000;
    let is_long = |name: &OsStr| name.len() > NAME;
    match pin_dir.iter().any(is_long) {
        true => Some(NAME),
        false => (pin_dir.as_os_str().len() > PATH).then_some(PATH),
    }
}

fn is_mounted_at_start(pin_dir: &Path) -> bool {
    pin_dir.starts_with(USUAL) && Path::new(USUAL).is_dir()
}

/// The usual place does not exist on a kernel that knows no such file system.
fn how_to_mount(pin_dir: &Path) -> String {
    if pin_dir.starts_with(USUAL) {
        return format!("`mount -t bpf bpf {USUAL}`");
    }
    let place = pin_dir.parent().unwrap_or(pin_dir);
    let make =
        if place.is_dir() { String::new() } else { format!("mkdir -p {} && ", place.display()) };
    let place = place.display();
    format!("`{make}mount -t bpf bpf {place}`, or leave `--pin-dir` as it is by default")
}

/// Mounts the BPF file system at its usual place where nobody has.
pub(super) fn mount_bpf(pin_dir: &Path) -> Result<(), Problem> {
    let mounted = mounts::of_type("bpf").map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("read the mount table: {error}"))
    })?;
    if !pin_dir.starts_with(USUAL) || mounted.iter().any(|mount| mount.point == Path::new(USUAL)) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), USUAL, Some("bpf"), flags, Some("mode=0700")).map_err(|error| {
        let message = format!("mount the BPF file system at `{USUAL}`: {error}");
        Problem::new(ProblemKind::Preflight, message).fix(match error {
            Errno::EPERM | Errno::EACCES => PASS_IN.to_owned(),
            _ => format!("mount it: `mount -t bpf bpf {USUAL}`"),
        })
    })?;
    tracing::info!("mounted the BPF file system at {USUAL}");
    Ok(())
}

/// What to do where something forbids to mount: a filter of system calls, or AppArmor, as containers have them.
pub const PASS_IN: &str = "mount it outside, where that is not forbidden (`mount -t bpf bpf /sys/fs/bpf`), and pass it in: in a container by `-v /sys/fs/bpf:/sys/fs/bpf`";

const USUAL: &str = "/sys/fs/bpf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_on_another_file_system_have_a_mount_for_a_fix() {
        let problem = examine_pin_directory(Path::new("/proc/self/pins")).unwrap_err();
        assert!(problem.message.ends_with("`/proc/self` is no BPF file system"), "{problem:?}");
        assert!(problem.fix.unwrap().contains("--pin-dir"));
        let problem = examine_pin_directory(Path::new("/proc/self/no/pins")).unwrap_err();
        let fix = problem.fix.unwrap();
        assert!(
            fix.starts_with("`mkdir -p /proc/self/no && mount -t bpf bpf /proc/self/no`"),
            "{fix}"
        );
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        for (name, refused) in
            [("a".repeat(255), false), ("a".repeat(256), true), ("a/".repeat(2100), true)]
        {
            assert_eq!(too_long(&Path::new(USUAL).join(&name)).is_some(), refused);
        }
    }
}
