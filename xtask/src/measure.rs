//! `cargo xtask measure`: what the agent costs, on this machine.

use std::path::Path;

use anyhow::Result;

use crate::{program, setup};

/// Measures the agent.
///
/// # Errors
///
/// As [`program::take_over`].
pub(crate) fn run(root: &Path, rounds: u32) -> Result<()> {
    program::take_over(root, "measure", setup::for_measure, |measure| {
        measure.arg(rounds.to_string()).arg(root.join("target/measure.json"));
    })
}
