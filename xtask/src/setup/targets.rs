//! The compiler's library for targets other than its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{command, layout::Target, setup::say};

/// Installs the library of a target unless it is there.
///
/// # Errors
///
/// When rustup does not deliver it.
pub(super) fn ensure(root: &Path, target: Target) -> Result<()> {
    if library(target)?.is_dir() {
        return Ok(());
    }
    let triple = target.triple();
    say(&format!("rust-std for {triple}, by rustup"));
    command::run_quietly_within(
        Command::new("rustup").args(["target", "add", triple]).current_dir(root),
        LIMIT,
    )
    .with_context(|| format!("install the compiler's library for {triple}"))
}

/// The compiler names a folder whether there is one or not.
fn library(target: Target) -> Result<PathBuf> {
    let words = ["--print", "target-libdir", "--target", target.triple()];
    let folder = command::output(Command::new("rustc").args(words))?;
    Ok(PathBuf::from(folder.trim()))
}

/// Some 40 MB each, on a slow network.
const LIMIT: Duration = Duration::from_secs(300);
