//! What the agent rests on is taken away while it runs: it notices, says so, and no connection is harmed.

mod descriptors;
mod disk;
mod removed;
mod reports;
mod room;

use anyhow::{Context as _, Result};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// The messages of all events so far.
fn events(stage: &Stage) -> Result<Vec<String>> {
    let events = stage.agent.run(&["events", "-o", "json"])?.success()?.json()?;
    let events = events["events"].as_array().context("a list of events")?;
    Ok(events.iter().filter_map(|event| event["message"].as_str()).map(str::to_owned).collect())
}

/// Waits for an event that says this.
fn until_event(stage: &Stage, part: &str) -> Result<String> {
    let mut last = Vec::new();
    wait::until(part, LIMIT, || {
        // While the control socket is away, nobody answers.
        last = events(stage).unwrap_or_default();
        Ok(last.iter().find(|message| message.contains(part)).cloned())
    })
    .with_context(|| format!("{last:#?}"))
}
