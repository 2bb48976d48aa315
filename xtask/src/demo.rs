//! `cargo xtask demo`: an upgrade under load, on this machine.

use std::path::Path;

use anyhow::{Result, bail};

use crate::build::{self, Build, Profile};

/// Builds the agent and shows it at work.
///
/// # Errors
///
/// When the agent cannot be built, and when the demo does not go as promised.
pub(crate) fn run(root: &Path) -> Result<()> {
    let Build { agent } = build::run(root, Profile::Release)?;
    bail!("not there yet: `{}` is built, but nothing shows it", agent.display());
}
