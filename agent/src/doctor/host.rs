//! What the machine allows us and has mounted.

use std::{fs, io, path::Path};

use nix::sys::resource::{Resource, getrlimit};

use super::Check;
use crate::{
    host::{cgroup::Hierarchy, mounts},
    places::Places,
};

/// The user and the capabilities.
pub(super) fn permissions() -> Vec<Check> {
    let user = user(rustix::process::geteuid(), &fs::read_to_string(USERS));
    vec![user, capabilities(&fs::read_to_string(STATUS))]
}

/// The BPF file system for the pins and the control groups.
pub(super) fn mounts(places: &Places) -> Vec<Check> {
    vec![bpf_file_system(&places.pin_dir), control_groups()]
}

/// Servers with many files make the agent open many, but only a few at a time.
pub(super) fn open_files() -> Check {
    let name = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit >= ENOUGH_FILES => Check::ok(name, format!("at most {limit}")),
        Ok((limit, _)) => Check::missing(
            name,
            format!("at most {limit}, and the agent may need {ENOUGH_FILES}"),
            format!("ulimit -n {ENOUGH_FILES}"),
        ),
        Err(error) => Check::unknown(name, error.to_string()),
    }
}

/// Capabilities of a root that is one only in a user namespace look the same, and the kernel asks for the others.
fn user(user: rustix::process::Uid, users: &io::Result<String>) -> Check {
    let name = "user";
    if !user.is_root() {
        let found = format!("uid {user}, and the agent needs root");
        return Check::missing(name, found, "run it with sudo");
    }
    match users.as_deref().map(|users| users.split_whitespace().collect::<Vec<_>>()).as_deref() {
        Ok(["0", "0", ALL_USERS]) => Check::ok(name, "root"),
        Ok(_) => Check::missing(
            name,
            "root of a user namespace only",
            "run it as root of the machine, not in a rootless container",
        ),
        Err(error) => Check::unknown(name, format!("read `{USERS}`: {error}")),
    }
}

fn capabilities(status: &io::Result<String>) -> Check {
    let name = "capabilities";
    let status = match status {
        Ok(status) => status,
        Err(error) => return Check::unknown(name, format!("read `{STATUS}`: {error}")),
    };
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let Some(effective) = effective else {
        return Check::unknown(name, format!("`{STATUS}` does not say"));
    };
    let lacking: Vec<&str> = NEEDED
        .iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0)
        .map(|(capability, _)| *capability)
        .collect();
    if lacking.is_empty() {
        return Check::ok(name, limits(effective));
    }
    Check::missing(
        name,
        format!("without {}", lacking.join(", ")),
        "run it with sudo; in a container, give it these capabilities",
    )
}

/// One that is missed by few: containers seldom have it.
const fn limits(effective: u64) -> &'static str {
    const CAP_SYS_RESOURCE: u32 = 24;
    if effective & (1 << CAP_SYS_RESOURCE) == 0 {
        "all but CAP_SYS_RESOURCE: a generation gets no higher limits than the agent's own"
    } else {
        "all that are needed"
    }
}

fn bpf_file_system(pin_dir: &Path) -> Check {
    let name = "BPF file system";
    let place = pin_dir.ancestors().find(|place| place.exists()).unwrap_or(pin_dir);
    match rustix::fs::statfs(place) {
        Ok(found) if found.f_type as u64 == BPF_FS_MAGIC => {
            Check::ok(name, format!("pins go to `{}`", pin_dir.display()))
        }
        Ok(_) if pin_dir.starts_with(USUAL) && Path::new(USUAL).is_dir() => {
            Check::ok(name, format!("not mounted; the agent mounts it at `{USUAL}` when it starts"))
        }
        Ok(_) => Check::missing(
            name,
            format!("`{}` is on another file system", place.display()),
            mount_command(pin_dir),
        ),
        Err(error) => Check::unknown(name, format!("examine `{}`: {error}", place.display())),
    }
}

/// The usual place does not exist on a kernel that knows no such file system.
fn mount_command(pin_dir: &Path) -> String {
    if pin_dir.starts_with(USUAL) {
        return format!("mount -t bpf bpf {USUAL}");
    }
    let place = pin_dir.parent().unwrap_or(pin_dir).display();
    format!("mount -t bpf bpf {place}, or leave --pin-dir as it is by default")
}

fn control_groups() -> Check {
    let name = "control groups";
    let found = Hierarchy::find();
    let old = mounts::of_type("cgroup").unwrap_or_default();
    match found {
        Ok(hierarchy) => {
            let place = hierarchy.root().directory().display().to_string();
            let kind =
                if old.is_empty() { "version 2" } else { "version 2 beside version 1 (hybrid)" };
            Check::ok(name, format!("{kind}, at `{place}`"))
        }
        Err(crate::host::cgroup::CgroupError::NotMounted) => {
            Check::missing(name, "version 2 is not mounted", Hierarchy::how_to_mount())
        }
        Err(error) => Check::unknown(name, all_causes(&error)),
    }
}

/// An error with all that led to it, on one line.
pub(super) fn all_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes: Vec<String> = std::iter::successors(Some(error), |cause| cause.source())
        .map(ToString::to_string)
        .collect();
    causes.join(": ")
}

/// What it is called, and its number in `linux/capability.h`: maps and programs, counting flows, steering, mounts and
/// control groups and namespaces, finding who has a socket, the users and groups of new generations, ending old ones.
const NEEDED: [(&str, u32); 8] = [
    ("CAP_BPF", 39),
    ("CAP_PERFMON", 38),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SETUID", 7),
    ("CAP_SETGID", 6),
    ("CAP_KILL", 5),
];
/// The user namespace of the machine itself has them all, each under its own number.
const ALL_USERS: &str = "4294967295";
const USERS: &str = "/proc/thread-self/uid_map";
const STATUS: &str = "/proc/thread-self/status";
const USUAL: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
const ENOUGH_FILES: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn status(effective: &str) -> io::Result<String> {
        Ok(format!("Name:\tagent\nCapPrm:\t0000000000000000\nCapEff:\t{effective}\n"))
    }

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(capabilities(&status("000001ffffffffff")).verdict, Verdict::Ok);
        let without_admin = capabilities(&status("000001ffffdfffff"));
        assert_eq!(without_admin.verdict, Verdict::Missing);
        assert_eq!(without_admin.detail, "without CAP_SYS_ADMIN");
        let limited = capabilities(&status("000001fffeffffff"));
        assert_eq!(limited.verdict, Verdict::Ok);
        assert!(limited.detail.contains("CAP_SYS_RESOURCE"), "{limited:?}");
        let nothing = capabilities(&status("0000000000000000"));
        assert!(NEEDED.iter().all(|(name, ..)| nothing.detail.contains(name)), "{nothing:?}");
    }

    #[test]
    fn root_of_a_user_namespace_is_not_enough() {
        use rustix::process::Uid;
        let machine = Ok("         0          0 4294967295\n".to_owned());
        assert_eq!(user(Uid::ROOT, &machine).verdict, Verdict::Ok);
        assert_eq!(user(Uid::from_raw(1000), &machine).verdict, Verdict::Missing);
        let container = Ok("         0       1000          1\n".to_owned());
        assert_eq!(user(Uid::ROOT, &container).verdict, Verdict::Missing);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let hidden = Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(capabilities(&hidden).verdict, Verdict::Unknown);
        assert_eq!(capabilities(&Ok("Name:\tagent\n".to_owned())).verdict, Verdict::Unknown);
    }

    #[test]
    fn pins_on_another_file_system_have_a_mount_for_a_fix() {
        let check = bpf_file_system(Path::new("/proc/self/pins"));
        assert_eq!(check.verdict, Verdict::Missing);
        assert!(check.fix.unwrap().starts_with("mount -t bpf bpf /proc/self"));
    }
}
