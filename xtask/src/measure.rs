//! `cargo xtask measure`: what the agent costs, on this machine.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context, Error, Result, ensure};

use crate::{
    build::{self, Build},
    layout::Profile,
    setup,
};

/// Builds the agent for use and measures it. Returns only if that does not even begin: the measuring program takes this
/// process over, so that its exit code is ours, and Ctrl-C waits for it to clean up.
///
/// # Errors
///
/// Without root, and when the agent cannot be built.
pub(crate) fn run(root: &Path, rounds: u32) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run this as root: it makes a network namespace and loads kernel programs"
    );
    setup::for_measure(root)?;
    let Build { agent } = build::run(root, Profile::Release)?;
    let measure = agent.with_file_name("measure");
    let failed = Command::new(&measure)
        .arg(rounds.to_string())
        .arg(root.join("target/measure.json"))
        .env("AGENT_BINARY", &agent)
        .exec();
    Err(Error::new(failed)).with_context(|| format!("start `{}`", measure.display()))
}
