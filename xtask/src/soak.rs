//! `cargo xtask soak`: the agent under load for a long time, on this machine.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use crate::{program, setup};

/// Lets the agent run under load. Without a seed it is the time of day, which is printed.
///
/// # Errors
///
/// As [`program::take_over`].
pub(crate) fn run(root: &Path, minutes: u32, seed: Option<u64>) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "any number that is another one each time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = seed.unwrap_or(now.as_secs());
    program::take_over(root, "soak", setup::for_tests, |soak| {
        soak.arg(format!("{minutes}min")).arg(seed.to_string()).arg(root.join("target/soak.json"));
    })
}
