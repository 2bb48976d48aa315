//! What this machine has of all that the agent needs, found out by doing it, and what to do where something is missing.
//!
//! - `kernel`: what the datapath's rehearsal found
//! - `host`: permissions, mounts, limits
//! - `leftovers`: what an agent left that does not run
//! - `setting`: what is no obstacle, but good to know
//!
//! Nothing is left behind, and no program that runs is disturbed: see [`crate::datapath::probe`].

mod host;
mod kernel;
mod leftovers;
mod setting;

use serde::{Deserialize, Serialize};

use crate::{host::open_files, places::Places};

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
pub fn checks(places: &Places) -> Vec<Check> {
    let files = open_files::allow_all();
    let mut checks = host::permissions();
    checks.extend(host::mounts(places));
    checks.extend(kernel::checks(places));
    checks.push(host::open_files(files));
    checks.push(leftovers::check(places));
    checks.extend(setting::checks(places));
    checks
}

/// What keeps this build from working here, found out by loading and attaching everything once where it disturbs nobody.
pub fn obstacles(places: &Places) -> Vec<Check> {
    let mut obstacles = kernel::checks(places);
    obstacles.retain(|check| check.verdict != Verdict::Ok && kernel::is_needed(check));
    obstacles
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

    fn unknown(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Unknown, detail: detail.into(), fix: None }
    }
}
