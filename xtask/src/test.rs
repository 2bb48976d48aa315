//! `cargo xtask test`: everything that must hold before a change is taken.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{
    build, check, command, kernels,
    layout::{self, Profile},
    setup,
};

/// Builds, checks, boots the oldest kernel that is served and the newest one, and runs the tests, whose own closing lines are the
/// last that is printed.
///
/// The integration tests find what was installed for them below `AGENT_TEST_TOOLS`.
///
/// # Errors
///
/// When anything does not build, when a check fails, when a kernel does not do as expected, and when a test fails. A kernel that
/// cannot be downloaded is none.
pub(crate) fn run(root: &Path, only: Option<&str>) -> Result<()> {
    setup::for_tests(root)?;
    build::run(root, Profile::Dev)?;
    check::run(root)?;
    // One broken promise must not hide the state of the others.
    let kernels = if only.is_none() { kernels::quick(root) } else { Ok(()) };
    let tests = command::run(
        command::cargo(root)
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(only)
            .env("AGENT_TEST_TOOLS", layout::tools(root)),
    );
    match (kernels, tests) {
        (Err(kernels), Err(tests)) => Err(tests.context(format!("on other kernels: {kernels:#}"))),
        (kernels, tests) => kernels.context("on other kernels").and(tests),
    }
}
