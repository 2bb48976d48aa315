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
    commands::expect(PREFLIGHT, &["doctor"])?;
    let traffic = Traffic::start()?;
    let refusal = commands::expect(PREFLIGHT, &["attach", "--port", &PORT.to_string()])?;
    traffic.stop(counted)?;
    let lines = refusal.stdout.lines().count() + refusal.stderr.lines().count();
    if lines > MOST_LINES {
        counted.wrong(format!("the refusal has {lines} lines"));
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
/// Of a refusal: what people read.
const MOST_LINES: usize = 12;
