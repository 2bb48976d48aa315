//! The programs of `bench/`, which show, measure, compare and soak the agent that was built for use.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context, Error, Result, ensure};

use crate::{
    build::{self, Build},
    layout::{self, Profile},
};

/// Builds the agent, and lets such a program take this process over, so that its exit code is ours, and Ctrl-C waits for it to clean
/// up. Returns only if that does not even begin.
///
/// `install` makes sure of whatever else it needs.
///
/// # Errors
///
/// Without root, and when the agent cannot be built.
pub(crate) fn take_over(
    root: &Path,
    name: &str,
    install: impl FnOnce(&Path) -> Result<()>,
    with: impl FnOnce(&mut Command),
) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run this as root: it makes a network namespace and loads kernel programs"
    );
    install(root)?;
    let Build { agent } = build::run(root, Profile::Release)?;
    let program = agent.with_file_name(name);
    let mut command = Command::new(&program);
    command.env("AGENT_BINARY", &agent).env("AGENT_TEST_TOOLS", layout::tools(root));
    with(&mut command);
    Err(Error::new(command.exec())).with_context(|| format!("start `{}`", program.display()))
}
