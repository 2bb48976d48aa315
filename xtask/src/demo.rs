//! `cargo xtask demo`: upgrades under load, on this machine.

use std::path::Path;

use anyhow::Result;

use crate::{program, setup};

/// Shows the agent at work.
///
/// # Errors
///
/// As [`program::take_over`].
pub(crate) fn run(root: &Path) -> Result<()> {
    program::take_over(root, "demo", setup::for_demo, |_| {})
}
