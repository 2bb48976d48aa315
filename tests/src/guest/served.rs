//! What a release has to do on every kernel: an afternoon of upgrades, with everything that may go wrong in one.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::result::Counted;
use super::traffic::Traffic;
use super::{PORT, commands, leftovers, queued, traffic};
use crate::process::Handle;
use crate::wait;

/// Plays it all; what does not end it at once is noted in `counted`.
///
/// # Errors
///
/// If a command does not end as it should.
pub(super) fn play(counted: &mut Counted) -> Result<()> {
    commands::expect(0, &["doctor"])?;
    // Before there are clients: checking the kernel programs takes an emulated machine seconds, and these are no promise.
    commands::expect(0, &["daemon", "--background"])?;
    let traffic = Traffic::start()?;
    let upgraded = upgrades().and_then(|()| agents());
    // Also when they were broken off: that clients saw nothing of it is worth knowing.
    traffic.stop(counted)?;
    if upgraded.is_err() {
        // For whoever looks for the reason on the serial port.
        commands::run(&["events"])?;
    }
    upgraded?;
    queued::play(BEFORE_LAST, counted)?;
    answers_of(BEFORE_LAST)?;
    farewell(counted)
}

/// Versions of all kinds, one after the other.
fn upgrades() -> Result<()> {
    let port = &PORT.to_string();
    commands::expect(0, &["attach", "--port", port])?;
    for generation in 2..=BEFORE_LAST {
        commands::upgrade(generation, &[])?;
        answers_of(generation)?;
    }
    commands::expect(NOT_READY, &["upgrade", "--port", port, "--", BREAKS_AT_START])?;
    answers_of(BEFORE_LAST)?;
    commands::upgrade(LAST, &["--keep-old", "10m"])?;
    answers_of(LAST)?;
    commands::expect(0, &["undo", "--port", port])?;
    answers_of(BEFORE_LAST)
}

/// The agent dies, comes back, and makes room for another one.
fn agents() -> Result<()> {
    kill_agent()?;
    answers_of(BEFORE_LAST)?;
    commands::expect(0, &["daemon", "--background"])?;
    commands::upgrade(LAST, &["--keep-old", "10m"])?;
    answers_of(LAST)?;
    commands::expect(0, &["daemon", "--replace", "--background"])?;
    answers_of(LAST)
}

/// As a lack of memory would.
fn kill_agent() -> Result<()> {
    println!("the agent is killed");
    let pid = fs::read_to_string("/run/agent/agent.pid").context("read the agent's number")?;
    Handle::open(pid.trim().parse()?)?.kill()
}

/// The port is the kernel's again.
fn farewell(counted: &mut Counted) -> Result<()> {
    commands::expect(0, &["detach", "--port", &PORT.to_string()])?;
    answers_of(BEFORE_LAST)?;
    for left in leftovers::found()? {
        counted.wrong(format!("{left} is left"));
    }
    Ok(())
}

/// A few connections, each of which has to reach that generation: it is the agent's doing, since the kernel would choose
/// by itself between those that listen.
fn answers_of(generation: u32) -> Result<()> {
    for _ in 0..10 {
        let answered = traffic::ask().with_context(|| format!("ask generation {generation}"))?;
        ensure!(answered == generation, "generation {answered} answered in place of {generation}");
        wait::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The fifth upgrade leads to it; its successor is undone, and comes again.
const BEFORE_LAST: u32 = 6;
const LAST: u32 = 7;
/// A version that ends before it listens: it wants another argument.
const BREAKS_AT_START: &str = super::SERVER;
/// The exit code for a version that does not come up.
const NOT_READY: i32 = 5;
