//! What the machine allows us and has mounted.

use std::{fs, io, path::Path};

use agent_api::Problem;
use agent_terms::users;
use rustix::io::Errno;

use super::Check;
use crate::{
    daemon::{examine_directory, examine_group, examine_pin_directory},
    datapath,
    host::{
        capabilities::{self, Capability},
        cgroup::{CgroupError, Hierarchy},
        launch::{Launcher, NotStarted},
        mounts,
        null_device::{self, NoNullDevice},
        objects,
        open_files::TooFew,
        proc_mount, room,
        seccomp::Filtered,
        socket_options::{self, OptionMemory},
        sys_mount::{self, NoSysfs},
        tasks::{self, TooFewTasks},
    },
    places::Places,
};

/// The user, the capabilities, and what a filter of system calls leaves of them.
pub(super) fn permissions(filtered: Option<Filtered>) -> Vec<Check> {
    let user = user(rustix::process::geteuid(), &fs::read_to_string(users::USERS));
    vec![user, capabilities(capabilities::lacking()), system_calls(filtered)]
}

/// Where the agent's files and pins are, and the file systems of the kernel.
pub(super) fn mounts(places: &Places, no_group: Option<&CgroupError>) -> Vec<Check> {
    vec![
        process_file_system(),
        sysfs(),
        runtime_directory(places),
        bpf_file_system(&places.pin_dir),
        control_groups(places, no_group),
    ]
}

/// Each process of a server that is watched takes one.
pub(super) fn open_files(files: Result<Option<u64>, TooFew>) -> Check {
    let name = "open files";
    match files {
        Err(few) => Check::missing(name, few.to_string(), TooFew::FIX),
        Ok(None) => Check::ok(name, "any number"),
        Ok(Some(most)) if most < ENOUGH_FILES => Check::ok(
            name,
            format!(
                "at most {most}; with servers of many processes the agent may need {ENOUGH_FILES}"
            ),
        ),
        Ok(Some(most)) => Check::ok(name, format!("at most {most}")),
    }
}

/// What is told of only where there is too little of it: processes, objects of the kernel, and the null device.
pub(super) fn objects_and_limits() -> Vec<Check> {
    tasks(tasks::examine()).into_iter().chain(objects()).chain(null_device()).collect()
}

/// Told of only where there are too few.
fn tasks(tasks: Result<(), TooFewTasks>) -> Option<Check> {
    let too_few = tasks.err()?;
    Some(Check::missing("processes and threads", too_few.to_string(), TooFewTasks::FIX))
}

/// Told of only where one cannot be had.
fn objects() -> Option<Check> {
    Some(refused("kernel objects", &objects::examine().err()?.into()))
}

/// Starts one, and ends it. Told of only where it does not answer.
pub(super) fn launcher() -> Option<Check> {
    let ended = match Launcher::start() {
        Ok(launcher) => launcher.end().map_err(NotStarted::from),
        Err(error) => Err(error),
    };
    Some(refused("launcher", &ended.err()?.into()))
}

fn refused(name: &str, problem: &Problem) -> Check {
    let fix =
        problem.fix.clone().unwrap_or_else(|| "report this together with `uname -r`".to_owned());
    Check::missing(name, problem.in_full(), fix)
}

/// Told of only where there is none.
fn null_device() -> Option<Check> {
    let error = null_device::examine().err()?;
    Some(Check::missing("null device", error.to_string(), NoNullDevice::FIX))
}

/// Told of only where there is too little.
pub(super) fn option_memory() -> Option<Check> {
    let too_little = socket_options::examine().err()?;
    Some(Check::missing("socket options", too_little.to_string(), OptionMemory::FIX))
}

/// Which check says whether we are root of the machine.
pub(super) const USER: &str = "user";

/// Capabilities of a root that is one only in a user namespace look the same, and the kernel asks for the others.
fn user(user: rustix::process::Uid, users: &io::Result<String>) -> Check {
    let name = USER;
    if !user.is_root() {
        let found = format!("uid {user}, and the agent needs root");
        return Check::missing(name, found, "run it with sudo");
    }
    match users {
        Ok(users) if users::is_of_the_machine(users) => Check::ok(name, "root"),
        Ok(_) => Check::missing(
            name,
            "root of a user namespace only",
            "run it as root of the machine, not in a rootless container",
        ),
        Err(error) => Check::unknown(name, format!("read `{}`: {error}", users::USERS)),
    }
}

fn capabilities(lacking: rustix::io::Result<Vec<Capability>>) -> Check {
    let name = "capabilities";
    let lacking = match lacking {
        Ok(lacking) => lacking,
        Err(error) => return Check::unknown(name, error.to_string()),
    };
    let told = |it: &Capability| format!("without {} {}", it.name, it.lost);
    let (needed, wanted): (Vec<_>, Vec<_>) = lacking.iter().partition(|it| it.is_needed);
    let [needed, wanted] = [needed, wanted].map(|lacking: Vec<&Capability>| {
        lacking.into_iter().map(told).collect::<Vec<_>>().join("; ")
    });
    match (needed.is_empty(), wanted.is_empty()) {
        (true, true) => Check::ok(name, "all that are used"),
        (true, false) => Check::ok(name, wanted),
        (false, no_more) => {
            let beside = if no_more { String::new() } else { format!("; no obstacle: {wanted}") };
            let fix = "run it with sudo; in a container, give it these capabilities";
            Check::missing(name, format!("{needed}{beside}"), fix)
        }
    }
}

/// What keeps everything that follows from being judged, whatever the kernel can do.
pub(super) fn hindrance(files: Result<Option<u64>, TooFew>) -> Option<&'static str> {
    let lacking = capabilities::lacking().unwrap_or_default();
    match (lacking.iter().any(|it| it.is_needed), files) {
        (true, _) => Some("for capabilities are missing"),
        (false, Err(_)) => Some("for too few files may be open"),
        (false, Ok(_)) => None,
    }
}

fn system_calls(filtered: Option<Filtered>) -> Check {
    let name = "system calls";
    match filtered {
        None => Check::ok(name, "no filter refuses what is needed"),
        Some(filtered) => Check::missing(name, filtered.to_string(), filtered.fix()),
    }
}

fn process_file_system() -> Check {
    let name = "process file system";
    match proc_mount::examine() {
        Ok(()) => Check::ok(name, "`/proc` shows this PID namespace"),
        Err(error) => Check::missing(name, error.to_string(), error.fix()),
    }
}

fn sysfs() -> Check {
    let name = "sysfs";
    match sys_mount::examine() {
        Ok(()) => Check::ok(name, "`/sys` shows the kernel"),
        Err(error) => Check::missing(name, error.to_string(), NoSysfs::FIX),
    }
}

/// The agent makes the directory when it starts.
fn runtime_directory(places: &Places) -> Check {
    let name = "runtime directory";
    let directory = &places.runtime_dir;
    if let Err(problem) = examine_directory(places) {
        let fix = problem
            .fix
            .clone()
            .unwrap_or_else(|| format!("let root use `{}`", directory.display()));
        return Check::missing(name, problem.in_full(), fix);
    }
    let place = directory.ancestors().find(|place| place.exists()).unwrap_or(directory);
    match room::examine(place, room::BESIDE) {
        Ok(()) => Check::ok(name, format!("`{}` can be written", directory.display())),
        Err(error) => cannot_write(name, place, &error),
    }
}

fn cannot_write(name: &str, place: &Path, error: &io::Error) -> Check {
    let place_shown = place.display();
    let fix = match Errno::from_io_error(error) {
        Some(Errno::ROFS) => format!("make that file system writable: {}", mounts::remount(place)),
        Some(Errno::FBIG) => {
            "`ulimit -f unlimited`, or `LimitFSIZE=` in the agent's unit".to_owned()
        }
        Some(Errno::NOSPC | Errno::DQUOT) => {
            format!("make room there: `df -h {place_shown}`, `df -i {place_shown}`")
        }
        _ => format!("let root write to `{place_shown}`"),
    };
    Check::missing(name, format!("`{place_shown}` cannot be written: {error}"), fix)
}

fn writable(directory: &Path) -> rustix::io::Result<()> {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK)
}

fn bpf_file_system(pin_dir: &Path) -> Check {
    let name = "BPF file system";
    if let Err(problem) = examine_pin_directory(pin_dir) {
        return refused(name, &problem);
    }
    let place = pin_dir.ancestors().find(|place| place.exists()).unwrap_or(pin_dir);
    if !datapath::is_bpf(place) {
        let found = "not mounted; the agent mounts it at `/sys/fs/bpf` when it starts";
        return Check::ok(name, found);
    }
    match writable(place) {
        Ok(()) => Check::ok(name, format!("pins go to `{}`", pin_dir.display())),
        Err(error) => cannot_write(name, place, &error.into()),
    }
}

fn control_groups(places: &Places, no_group: Option<&CgroupError>) -> Check {
    let name = "control groups";
    if let Err(problem) = examine_group(places) {
        return refused(name, &problem);
    }
    let old = mounts::of_type("cgroup").unwrap_or_default();
    match (Hierarchy::find(), no_group) {
        (_, Some(error)) => match error.fix() {
            Some(fix) => Check::missing(name, all_causes(error), fix),
            None => Check::unknown(name, all_causes(error)),
        },
        (Ok(hierarchy), None) => {
            let place = hierarchy.root().directory().display().to_string();
            let kind =
                if old.is_empty() { "version 2" } else { "version 2 beside version 1 (hybrid)" };
            let unseen = hierarchy.unseen().map(|error| {
                let fix = error.fix().unwrap_or_default();
                format!(": no server there can be taken charge of, as {error}; {fix}")
            });
            Check::ok(name, format!("{kind}, at `{place}`{}", unseen.unwrap_or_default()))
        }
        (Err(error), None) => Check::unknown(name, all_causes(&error)),
    }
}

/// An error with all that led to it, on one line.
pub(super) fn all_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes: Vec<String> = std::iter::successors(Some(error), |cause| cause.source())
        .map(ToString::to_string)
        .collect();
    causes.join(": ")
}

const ENOUGH_FILES: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn root_of_a_user_namespace_is_not_enough() {
        use rustix::process::Uid;
        let machine = Ok("         0          0 4294967295\n".to_owned());
        assert_eq!(user(Uid::ROOT, &machine).verdict, Verdict::Ok);
        assert_eq!(user(Uid::from_raw(1000), &machine).verdict, Verdict::Missing);
        let container = Ok("         0       1000          1\n".to_owned());
        assert_eq!(user(Uid::ROOT, &container).verdict, Verdict::Missing);
    }
}
