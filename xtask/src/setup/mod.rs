//! `cargo xtask setup`: what building and testing need, installed once.
//!
//! Every other command calls this first. It is silent and quick when nothing is missing, and says in one line what it
//! installs when something is. Tools go below `target/`; only the compiler's own source and the servers that the tests
//! upgrade go to where the system has such things.

mod core_source;
pub(crate) mod debian;
mod go;
mod linker;
mod pm2;
mod servers;
mod tableflip;
mod targets;

use std::path::Path;

use anyhow::Result;

use crate::layout::Target;

/// Makes building and checking possible.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_build(root: &Path) -> Result<()> {
    core_source::ensure(root)?;
    linker::ensure(root)
}

/// Makes the demo possible as well.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_demo(root: &Path) -> Result<()> {
    for_build(root)?;
    servers::ensure_for_demo()
}

/// Makes measuring possible as well.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_measure(root: &Path) -> Result<()> {
    for_build(root)?;
    servers::ensure_for_measure()
}

/// Makes comparing with other ways possible as well. What cannot be had is a gap in the tables.
///
/// # Errors
///
/// When something is missing that our own part needs, and cannot be installed.
pub(crate) fn for_bench(root: &Path) -> Result<()> {
    for_tests(root)?;
    for outcome in [servers::ensure_for_bench(), tableflip::ensure(root)] {
        if let Err(error) = outcome {
            say(&format!("going on without: {error:#}"));
        }
    }
    Ok(())
}

/// Makes building for a target other than the compiler's own possible as well.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_target(root: &Path, target: Target) -> Result<()> {
    for_build(root)?;
    targets::ensure(root, target)
}

/// Makes booting other kernels possible.
///
/// # Errors
///
/// When an emulator is missing and cannot be installed.
pub(crate) fn emulators() -> Result<()> {
    servers::ensure_for_kernels()
}

/// Makes testing possible as well.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_tests(root: &Path) -> Result<()> {
    for_build(root)?;
    servers::ensure()?;
    pm2::ensure(root)?;
    go::ensure(root)
}

/// Says what is being installed.
fn say(what: &str) {
    eprintln!("setup: {what}");
}
