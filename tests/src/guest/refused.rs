//! A machine that lacks something: that is said in a few words, and nothing else happens.

use anyhow::Result;

use super::result::Counted;
use super::{PORT, commands, leftovers, traffic};

/// Lets the agent refuse.
///
/// # Errors
///
/// If it does not, or the server is not what it was.
pub(super) fn play(counted: &mut Counted) -> Result<()> {
    let traffic = traffic::Traffic::start()?;
    commands::expect(PREFLIGHT, &["doctor"])?;
    let refusal = commands::expect(PREFLIGHT, &["attach", "--port", &PORT.to_string()])?;
    traffic.stop(counted)?;
    let lines = refusal.stdout.lines().count() + refusal.stderr.lines().count();
    if lines > MOST_LINES {
        counted.wrong(format!("the refusal has {lines} lines"));
    }
    for left in leftovers::found()? {
        counted.wrong(format!("{left} is left"));
    }
    traffic::ask().map(drop)
}

/// The exit code for something that is missing.
const PREFLIGHT: i32 = 4;
/// Of a refusal: what people read.
const MOST_LINES: usize = 12;
