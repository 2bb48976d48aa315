//! A machine that lacks something: that is said in a few words, and nothing else happens.

use anyhow::Result;

use super::result::Counted;
use super::traffic::Traffic;
use super::{PORT, commands, leftovers, traffic};

/// Lets the agent refuse.
///
/// # Errors
///
/// If it does not, or the server is not what it was.
pub(super) fn play(counted: &mut Counted) -> Result<()> {
    let diagnosis = commands::expect(PREFLIGHT, &["doctor"])?.stdout;
    let missing = diagnosis.lines().filter(|line| line.contains(" missing "));
    for check in missing.filter_map(|line| line.split("  ").next()) {
        let fix = diagnosis.lines().find(|line| line.starts_with(&format!("fix {check}: ")));
        // What a kernel lacks it is too old for.
        if fix.is_none_or(|fix| fix.contains("is new enough")) {
            counted.wrong(format!("{check} is missing, and what to do is: {fix:?}"));
        }
    }
    let traffic = Traffic::start()?;
    let refusal = commands::expect(PREFLIGHT, &["attach", "--port", &PORT.to_string()])?;
    traffic.stop(counted)?;
    let lines: Vec<_> = refusal.stdout.lines().chain(refusal.stderr.lines()).collect();
    if !matches!(lines[..], [why, fix] if why.starts_with("error: ") && fix.contains("fix: ")) {
        counted.wrong(format!("the refusal is {lines:?}"));
    }
    let left = leftovers::found()?;
    // People are sent there to read why it did not start.
    for left in left.iter().filter(|left| !left.ends_with("/agent.log")) {
        counted.wrong(format!("{left} is left"));
    }
    traffic::ask().map(drop)
}

/// The exit code for something that is missing.
const PREFLIGHT: i32 = 4;
