//! `cargo xtask bench`: what upgrades cost, for us and for other ways, on this machine.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context, Error, Result, ensure};

use crate::{
    build::{self, Build},
    layout::{self, Profile},
    setup,
};

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) again: bool,
    pub(crate) only: Vec<String>,
}

/// Builds the agent for use and compares it. Returns only if that does not even begin: the comparing program takes this
/// process over, so that its exit code is ours, and Ctrl-C waits for it to clean up.
///
/// # Errors
///
/// Without root, and when the agent cannot be built.
pub(crate) fn run(root: &Path, choice: &Choice) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run this as root: it makes network namespaces and loads kernel programs"
    );
    if !choice.again {
        setup::for_bench(root)?;
    }
    let Build { agent } = build::run(root, Profile::Release)?;
    let bench = agent.with_file_name("bench");
    let whole = !choice.quick && choice.only.is_empty();
    let failed = Command::new(&bench)
        .arg(choice.turns().to_string())
        .arg(root.join(if whole { "docs" } else { "target/bench" }))
        .arg(choice.typed())
        .args(&choice.only)
        .env("AGENT_BINARY", &agent)
        .env("AGENT_TEST_TOOLS", layout::tools(root))
        .exec();
    Err(Error::new(failed)).with_context(|| format!("start `{}`", bench.display()))
}

impl Choice {
    /// How many rounds; none to use those that were made.
    fn turns(&self) -> u32 {
        match (self.again, self.quick) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => self.rounds,
        }
    }

    /// As one would type it.
    fn typed(&self) -> String {
        let mut typed = "cargo xtask bench".to_owned();
        if self.quick {
            typed.push_str(" --quick");
        } else {
            typed.push_str(&format!(" --rounds {}", self.rounds));
        }
        if !self.only.is_empty() {
            typed.push_str(&format!(" --only {}", self.only.join(",")));
        }
        typed
    }
}
