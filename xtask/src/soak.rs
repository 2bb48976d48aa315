//! `cargo xtask soak`: the agent under load for a long time, on this machine.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Error, Result, ensure};

use crate::{
    build::{self, Build},
    layout::{self, Profile},
    setup,
};

/// Builds the agent for use and lets it run under load. Returns only if that does not even begin: the soaking program takes
/// this process over, so that its exit code is ours, and Ctrl-C waits for it to clean up.
///
/// Without a seed it is the time of day, which is printed.
///
/// # Errors
///
/// Without root, and when the agent cannot be built.
pub(crate) fn run(root: &Path, minutes: u32, seed: Option<u64>) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run this as root: it makes a network namespace and loads kernel programs"
    );
    setup::for_tests(root)?;
    let Build { agent } = build::run(root, Profile::Release)?;
    let soak = agent.with_file_name("soak");
    #[expect(clippy::disallowed_methods, reason = "any number that is another one each time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let failed = Command::new(&soak)
        .arg(format!("{minutes}min"))
        .arg(seed.unwrap_or(now.as_secs()).to_string())
        .arg(root.join("target/soak.json"))
        .env("AGENT_BINARY", &agent)
        .env("AGENT_TEST_TOOLS", layout::tools(root))
        .exec();
    Err(Error::new(failed)).with_context(|| format!("start `{}`", soak.display()))
}
