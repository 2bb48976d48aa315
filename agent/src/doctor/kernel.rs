//! What the kernel can do, as the datapath's rehearsal found it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

use rustix::io::Errno;

use super::Check;
use crate::{
    datapath::probe::{self, About, Feature, Outcome, Without},
    host::{
        cgroup::Hierarchy,
        open_files::TooFew,
        seccomp::{self, Filtered},
        sock_diag,
    },
    places::Places,
};

/// Whether a check is of something that the agent needs of the kernel.
pub(super) fn is_needed(check: &Check) -> bool {
    let is_it = |feature: &Feature| !feature.is_comfort() && feature.to_string() == check.name;
    check.name == SOCKET_DIAGNOSIS || Feature::ALL.iter().any(is_it)
}

const SOCKET_DIAGNOSIS: &str = "socket diagnosis";

/// The rehearsal, and the socket diagnosis that reads the storage it makes.
pub(super) fn checks(places: &Places) -> Vec<Check> {
    let group = EmptyGroup::create(places);
    let directory = match &group {
        Ok(group) => File::open(&group.path).map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    let mut diagnosis = None;
    let outcomes = probe::rehearse(directory.as_ref().map_err(String::as_str), |tags| {
        // Any port: the kernel looks at the storage map first.
        diagnosis = Some(sock_diag::connections(&[1], Some(tags)).map(drop));
    });
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let is_filtered = seccomp::filtered().is_some();
    let fix = |about: About| match is_filtered {
        // Whatever kernel it is.
        true => Filtered::FIX.to_owned(),
        false => about.fix(&release),
    };
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
        Without::Refused => Check::missing(name, why, fix(about)),
        Without::Untried => Check::unknown(name, why),
        Without::Less(loss) => {
            let fix = Some(fix(about));
            Check { fix, ..Check::unknown(name, format!("done without, so that {loss}: {why}")) }
        }
    }
}

fn socket_diagnosis(diagnosis: Option<Result<(), sock_diag::SockDiagError>>) -> Check {
    let name = SOCKET_DIAGNOSIS;
    match diagnosis {
        Some(Ok(())) => Check::ok(name, "sockets can be listed with their storage"),
        Some(Err(error)) => {
            Check::missing(name, super::host::all_causes(&error), sock_diag::MODULES)
        }
        None => Check::unknown(name, "not tried: there is no storage to list"),
    }
}

/// A control group without processes, beside the agent's own: what refuses our programs there refuses them here.
struct EmptyGroup {
    path: PathBuf,
}

impl EmptyGroup {
    fn create(places: &Places) -> Result<Self, String> {
        let hierarchy = Hierarchy::find().map_err(|error| super::host::all_causes(&error))?;
        let agents = places.cgroup.as_deref().unwrap_or_else(|| Path::new(Places::CGROUP));
        let beside = agents.ancestors().skip(1).find_map(|above| hierarchy.open(above).ok());
        let beside = beside.unwrap_or_else(|| hierarchy.root());
        remove_left_behind(beside.directory());
        let path = beside.directory().join(format!("{GROUP}{}", process::id()));
        fs::create_dir(&path)
            .map_err(|error| format!("create the control group `{}`: {error}", path.display()))?;
        Ok(Self { path })
    }
}

/// Groups of those that were interrupted. In another PID namespace the numbers are others': one of ours is nobody else's.
fn remove_left_behind(directory: &Path) {
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|it| it.file_name());
    for name in names {
        let number = name.to_str().and_then(|name| name.strip_prefix(GROUP)?.parse::<u32>().ok());
        let is_left =
            |number| number == process::id() || !Path::new(&format!("/proc/{number}")).exists();
        if number.is_some_and(is_left)
            && let Err(error) = fs::remove_dir(directory.join(&name))
        {
            tracing::warn!(group = %name.display(), %error, "an empty control group stays");
        }
    }
}

/// What it is called, and the number of its process.
const GROUP: &str = "agent-doctor-";

impl Drop for EmptyGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an empty control group is left behind");
        }
    }
}
