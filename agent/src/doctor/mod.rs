//! What this machine has of all that the agent needs, found out by doing it, and what to do where something is missing.
//!
//! - `kernel`: what the datapath's rehearsal found
//! - `host`: permissions, mounts, limits
//! - `leftovers`: what an agent left that does not run
//! - `setting`: what is no obstacle, but good to know
//! - `trial`: directories to try something in
//!
//! Nothing is left behind, and no program that runs is disturbed: see [`crate::datapath::probe`].

mod host;
mod kernel;
mod leftovers;
mod setting;
mod trial;

use std::io::{self, Write as _};

use agent_api::{Problem, ProblemKind};
use nix::sys::{signal::Signal, wait::WaitStatus};
use serde::{Deserialize, Serialize};

use self::kernel::EmptyGroup;
use crate::{
    datapath::probe::Seclusion,
    host::{
        ended::Ended,
        open_files, proc_mount,
        seccomp::{self, Launches},
        sys_mount,
    },
    places::Places,
    sys::aside::{Told, aside},
};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As needed.
    Ok,
    /// Needed, and not there.
    Missing,
    /// Could not be found out.
    Unknown,
}

/// Looks at everything that an agent with these directories needs, in the order in which it matters.
///
/// In a process of its own, where one can be had: filters kill, and limits end, whoever does what they are against. The caller has
/// one thread.
pub fn checks(places: &Places) -> Vec<Check> {
    let mut looked = look_aside(places, Seclusion::Wanted);
    // Of the calls that filters kill for, the agent itself makes no namespaces.
    let status =
        |looked: &io::Result<(Vec<Check>, Told)>| looked.as_ref().ok().map(|it| it.1.status);
    if let Some(WaitStatus::Signaled(_, Signal::SIGSYS, _)) = status(&looked) {
        let again = look_aside(places, Seclusion::Deadly);
        if let Some(WaitStatus::Exited(_, 0)) = status(&again) {
            looked = again;
        }
    }
    kernel::remove_left_behind(places);
    match looked {
        Ok((checks, told)) => checks.into_iter().chain(untimely_end(&told)).collect(),
        Err(error) => {
            tracing::debug!(%error, "looking in this process");
            let mut all = Vec::new();
            look(places, Seclusion::Wanted, |checks| all.extend(checks));
            all
        }
    }
}

fn look_aside(places: &Places, seclusion: Seclusion) -> io::Result<(Vec<Check>, Told)> {
    let told = aside(|mut out| {
        look(places, seclusion, |checks| {
            for check in checks {
                let line = serde_json::to_string(&check).unwrap_or_default();
                // Who asked is waiting for it.
                writeln!(out, "{line}").expect("our other half reads");
            }
        });
    })?;
    let lines = told.bytes.split(|byte| *byte == b'\n');
    Ok((lines.filter_map(|line| serde_json::from_slice(line).ok()).collect(), told))
}

/// What is to be said of one that did not come to its end.
fn untimely_end(told: &Told) -> Option<Check> {
    let name = kernel::REHEARSAL;
    match told.status {
        WaitStatus::Signaled(_, signal, _) => {
            let ended = Ended::by(signal as i32);
            let why = told.gave_up.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            Some(Check::missing(name, format!("what tried the rest {ended}{why}"), ended.fix()))
        }
        WaitStatus::Exited(_, 0) => None,
        other => {
            let detail = format!("what tried the rest ended too early: {other:?}");
            Some(Check::missing(name, detail, "report this together with what is above it"))
        }
    }
}

/// Tells what it finds as soon as it is found.
fn look(places: &Places, seclusion: Seclusion, mut tell: impl FnMut(Vec<Check>)) {
    let files = open_files::allow_all();
    let filtered = seccomp::filtered(Launches::Ours);
    let is_filtered = filtered.is_some();
    let permissions = host::permissions(filtered);
    let is_root =
        permissions.iter().all(|it| it.name != host::USER || it.verdict != Verdict::Missing);
    tell(permissions);
    // Whatever is found now may be the filter's answer, and who is not root of the machine finds out nothing.
    if is_filtered || !is_root {
        return;
    }
    kernel::remove_left_behind(places);
    let group = EmptyGroup::create(places);
    let hindered = host::hindrance(files);
    let judged = |checks: Vec<Check>| -> Vec<Check> {
        checks.into_iter().map(|check| check.despite(hindered)).collect()
    };
    tell(judged(host::mounts(places, group.as_ref().err())));
    let group = group.as_ref().map_err(|error| host::all_causes(error));
    // Where its file systems are mounted is not there, either.
    let unseen = sys_mount::examine().err().map(|_no| "for `/sys` does not show the kernel");
    let checks = judged(kernel::checks(places, seclusion, group));
    tell(checks.into_iter().map(|check| check.despite(unseen)).collect());
    tell(vec![host::open_files(files), leftovers::check(places)]);
    let mut objects = host::objects_and_limits();
    // It needs them all, and is executed by a name of `/proc`.
    if objects.is_empty() && proc_mount::examine().is_ok() {
        objects.extend(host::launcher());
    }
    tell(judged(objects));
    tell(host::option_memory().into_iter().collect());
    tell(setting::checks(places));
}

/// What keeps this build from working here, found out by loading and attaching everything once where it disturbs nobody.
fn obstacles(places: &Places) -> Vec<Check> {
    let group = EmptyGroup::create(places);
    let group = group.as_ref().map_err(|error| host::all_causes(error));
    let mut obstacles = kernel::checks(places, Seclusion::Wanted, group);
    obstacles.retain(|check| check.verdict != Verdict::Ok && kernel::is_needed(check));
    obstacles
}

/// That this build works here: one that the kernel refuses must not end one that works.
///
/// # Errors
///
/// With what keeps it from working.
pub fn prove(places: &Places) -> Result<(), Problem> {
    let obstacles = obstacles(places);
    if obstacles.is_empty() {
        return Ok(());
    }
    let causes = obstacles.iter().map(|check| format!("{}: {}", check.name, check.detail));
    let message = "this agent would not work here, so the one that runs was left alone";
    Err(Problem { causes: causes.collect(), ..Problem::new(ProblemKind::Preflight, message) }
        .fix("run `agent doctor` with this build: it says what to do"))
}

/// Whether a check says that the agent would not work, or that nobody could find out because what it needs of the kernel could not
/// be tried.
pub fn is_obstacle(check: &Check) -> bool {
    match check.verdict {
        Verdict::Ok => false,
        Verdict::Missing => true,
        Verdict::Unknown => kernel::is_needed(check),
    }
}

impl Check {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, detail: detail.into(), fix: None }
    }

    fn missing(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let fix = Some(fix.into());
        Self { name: name.into(), verdict: Verdict::Missing, detail: detail.into(), fix }
    }

    /// What is said to be missing may be there, and not for who is hindered.
    fn despite(self, hindrance: Option<&str>) -> Self {
        match (self.verdict, hindrance) {
            (Verdict::Missing, Some(hindrance)) => {
                Self::unknown(self.name, format!("not judged, {hindrance}: {}", self.detail))
            }
            (Verdict::Ok | Verdict::Missing, _) | (Verdict::Unknown, None) => self,
            (Verdict::Unknown, Some(_)) => Self { fix: None, ..self },
        }
    }

    fn unknown(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Unknown, detail: detail.into(), fix: None }
    }
}
