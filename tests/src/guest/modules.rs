//! Parts of the kernel that come as files.

use std::fs::{self, File};
use std::io;

use anyhow::{Context as _, Result};
use rustix::system::finit_module;

/// Loads all that were brought along, in the order of their names: some need others.
pub(super) fn load_all() -> Result<()> {
    let entries = fs::read_dir("/modules").and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<_> =
        entries.context("list the modules")?.iter().map(|it| it.path()).collect();
    paths.sort();
    paths.iter().try_for_each(|path| {
        let loaded = File::open(path).and_then(|file| Ok(finit_module(file, c"", 0)?));
        loaded.with_context(|| format!("load `{}`", path.display()))
    })
}
