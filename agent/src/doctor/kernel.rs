//! What the kernel can do, as the datapath's rehearsal found it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{
    Check,
    trial::{self, Trial},
};
use crate::{
    daemon::PASS_IN,
    datapath::{
        self,
        probe::{self, About, Feature, Outcome, Seclusion, Without},
    },
    host::{
        cgroup::{Cgroup, CgroupError, Hierarchy},
        ended::MORE_MEMORY,
        open_files::TooFew,
        sock_diag, sys_mount,
        tasks::TooFewTasks,
    },
    places::Places,
};

/// Whether a check is of something that the agent needs of the kernel.
pub(super) fn is_needed(check: &Check) -> bool {
    let is_it = |feature: &Feature| {
        matches!(About::of(*feature).without, Without::Refused) && feature.to_string() == check.name
    };
    [SOCKET_DIAGNOSIS, REHEARSAL].contains(&check.name.as_str()) || Feature::ALL.iter().any(is_it)
}

const SOCKET_DIAGNOSIS: &str = "socket diagnosis";

/// All of it, where it could not begin or did not end.
pub(super) const REHEARSAL: &str = "rehearsal";

/// The rehearsal, and the socket diagnosis that reads the storage it makes.
pub(super) fn checks(
    places: &Places,
    seclusion: Seclusion,
    group: Result<&EmptyGroup, String>,
) -> Vec<Check> {
    let directory = match group {
        Ok(group) => File::open(group.0.path()).map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    let mut diagnosis = None;
    let aside = || trial_of_pins(places).map_err(|error| error.to_string());
    let cgroup = directory.as_ref().map_err(String::as_str);
    let rehearsed = probe::rehearse(seclusion, cgroup, aside, |tags| {
        // Any port: the kernel looks at the storage map first.
        diagnosis = Some(sock_diag::connections(&[1], Some(tags)).map(drop));
    });
    let outcomes = match rehearsed {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let detail = format!("start a thread for it: {error}");
            return vec![Check::missing(REHEARSAL, detail, TooFewTasks::FIX)];
        }
    };
    // Not by `uname`, which a filter may refuse: rustix takes that for impossible.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    let release = release.as_deref().map_or("an unknown release", str::trim);
    let fix = |about: About| about.fix(release);
    let mut checks: Vec<Check> =
        outcomes.into_iter().map(|(feature, outcome)| check(feature, outcome, fix)).collect();
    checks.push(socket_diagnosis(diagnosis));
    checks
}

fn check(feature: Feature, outcome: Outcome, fix: impl Fn(About) -> String) -> Check {
    let (name, about) = (feature.to_string(), About::of(feature));
    let why = match outcome {
        Outcome::Works => return Check::ok(name, about.shown_by),
        Outcome::Untried(why) => return Check::unknown(name, format!("not tried: {why}")),
        Outcome::Refused(why) => why,
    };
    match about.without {
        Without::Refused if why.ends_with(&io::Error::from(Errno::MFILE).to_string()) => {
            Check::missing(name, why, TooFew::FIX)
        }
        // Whatever it was wanted for.
        Without::Refused if is_want_of_memory(&why) => Check::missing(name, why, MORE_MEMORY),
        Without::Refused => {
            let fix = match feature {
                Feature::Types => sys_mount::what_hides_types().unwrap_or_else(|| fix(about)),
                Feature::FileSystem if is_forbidden(&why) => PASS_IN.to_owned(),
                _ => fix(about),
            };
            Check::missing(name, why, fix)
        }
        Without::Open => {
            let tried = "what follows was tried where the agent would do it";
            Check::unknown(name, format!("{why}; {tried}"))
        }
        Without::Less(loss) => {
            let fix = Some(fix(about));
            Check { fix, ..Check::unknown(name, format!("done without, so that {loss}: {why}")) }
        }
    }
}

/// The kernel's words, and those of Rust.
fn is_want_of_memory(why: &str) -> bool {
    let words = [io::Error::from(Errno::NOMEM), io::ErrorKind::OutOfMemory.into()];
    words.iter().any(|words| why.contains(&words.to_string()))
}

/// The kernel's words for what a filter of system calls or a security module refuses, which root alone is not told of by itself.
fn is_forbidden(why: &str) -> bool {
    let answers = [Errno::PERM, Errno::ACCESS].map(|errno| io::Error::from(errno).to_string());
    answers.iter().any(|answer| why.contains(answer))
        || why.contains("EPERM")
        || why.contains("EACCES")
}

fn socket_diagnosis(diagnosis: Option<Result<(), sock_diag::SockDiagError>>) -> Check {
    let name = SOCKET_DIAGNOSIS;
    match diagnosis {
        Some(Ok(())) => Check::ok(name, "sockets can be listed with their storage"),
        Some(Err(error)) => {
            let fix = match error {
                sock_diag::SockDiagError::Open(_) => sock_diag::FAMILY,
                _ => sock_diag::MODULES,
            };
            Check::missing(name, super::host::all_causes(&error), fix)
        }
        None => Check::unknown(name, "not tried: there is no storage to list"),
    }
}

/// A control group without processes, beside the agent's own: what refuses our programs there refuses them here.
#[derive(Debug)]
pub(super) struct EmptyGroup(Trial);

impl EmptyGroup {
    pub(super) fn create(places: &Places) -> Result<Self, CgroupError> {
        let hierarchy = Hierarchy::find()?;
        let beside = beside_group(places, &hierarchy)?;
        let failed =
            |path: PathBuf| |source| CgroupError::Failed { operation: "create", path, source };
        let group = Trial::make(beside.directory(), remove_group);
        let group = group.map_err(failed(beside.directory().join("agent-doctor")))?;
        // The agent's, and those below it: limits count how many there are, and how deep (`cgroup.max.descendants`, `cgroup.max.depth`).
        for name in &BELOW[..below_agents(places, &hierarchy)?] {
            let below = group.path().join(name);
            fs::create_dir(&below).map_err(failed(below.clone()))?;
            hierarchy.open(&below)?.refuse_threads()?;
        }
        Ok(Self(group))
    }
}

/// How many groups are still to be made below the agent's. Where that is there, so is what an agent made at once, and the empty one counts
/// for a generation.
fn below_agents(places: &Places, hierarchy: &Hierarchy) -> Result<usize, CgroupError> {
    let is_there = agents_group(places, hierarchy)?.directory().exists();
    Ok(if is_there { 1 } else { BELOW.len() })
}

/// What groups are called in an empty one: what keeps the agent's, and two generations.
const BELOW: [&str; 3] = ["keeper", "old", "new"];

/// Removes an empty group, with the empty ones in it, whatever another build called them.
fn remove_group(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// A place for pins beside the agent's own. On another file system nothing is made.
fn trial_of_pins(places: &Places) -> io::Result<Trial> {
    let beside = beside_pins(places);
    if !datapath::is_bpf(beside) {
        let message = format!("`{}` is on no BPF file system", beside.display());
        return Err(io::Error::other(message));
    }
    Trial::make(beside, remove_pins)
}

fn remove_pins(pins: &Path) -> io::Result<()> {
    datapath::clear(pins).map_err(io::Error::other)
}

fn agents_group(places: &Places, hierarchy: &Hierarchy) -> Result<Cgroup, CgroupError> {
    hierarchy.named(places.cgroup.as_deref().unwrap_or_else(|| Path::new(Places::CGROUP)))
}

fn beside_group(places: &Places, hierarchy: &Hierarchy) -> Result<Cgroup, CgroupError> {
    let agents = agents_group(places, hierarchy)?;
    let mut above = agents.directory().ancestors().skip(1);
    Ok(above.find_map(|above| hierarchy.open(above).ok()).unwrap_or_else(|| hierarchy.root()))
}

fn beside_pins(places: &Places) -> &Path {
    let above = places.pin_dir.ancestors().skip(1).find(|above| above.is_dir());
    above.unwrap_or(&places.pin_dir)
}

/// Removes what those left that were interrupted.
pub(super) fn remove_left_behind(places: &Places) {
    let beside = Hierarchy::find().and_then(|hierarchy| beside_group(places, &hierarchy));
    if let Ok(beside) = beside {
        trial::remove_left_behind(beside.directory(), remove_group);
    }
    trial::remove_left_behind(beside_pins(places), remove_pins);
}
