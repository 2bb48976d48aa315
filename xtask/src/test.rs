//! `cargo xtask test`: everything that must hold before a change is taken.

use std::path::Path;

use anyhow::Result;

use crate::{
    build, check, command,
    layout::{self, Profile},
    setup,
};

/// Builds, checks, and runs the tests, whose own closing lines are the last that is printed.
///
/// The integration tests find what was installed for them below `AGENT_TEST_TOOLS`.
///
/// # Errors
///
/// When anything does not build, when a check fails, and when a test fails.
pub(crate) fn run(root: &Path, only: Option<&str>) -> Result<()> {
    setup::for_tests(root)?;
    build::run(root, Profile::Dev)?;
    check::run(root)?;
    command::run(
        command::cargo(root)
            // One broken promise must not hide the state of the others.
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(only)
            .env("AGENT_TEST_TOOLS", layout::tools(root)),
    )
}
