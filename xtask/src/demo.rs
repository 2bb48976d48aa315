//! `cargo xtask demo`: upgrades under load, on this machine.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context, Error, Result, ensure};

use crate::{
    build::{self, Build},
    layout::Profile,
    setup,
};

/// Builds the agent and shows it at work. Returns only if that does not even begin: the demo takes this process over, so
/// that its exit code is ours, and Ctrl-C waits for it to clean up.
///
/// # Errors
///
/// Without root, and when the agent cannot be built.
pub(crate) fn run(root: &Path) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run this as root: it makes a network namespace and loads kernel programs"
    );
    setup::for_demo(root)?;
    let Build { agent } = build::run(root, Profile::Release)?;
    let demo = agent.with_file_name("demo");
    let failed = Command::new(&demo).env("AGENT_BINARY", &agent).exec();
    Err(Error::new(failed)).with_context(|| format!("start `{}`", demo.display()))
}
