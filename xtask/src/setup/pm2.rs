//! pm2, which Debian does not have: a tree of modules of its own below `target/`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{command, layout, setup::say};

/// Installs pm2 unless this very version is there.
///
/// # Errors
///
/// When npm cannot install it.
pub(super) fn ensure(root: &Path) -> Result<()> {
    let place = layout::tools(root).join("pm2");
    if installed_version(&place).as_deref() == Some(VERSION) {
        return Ok(());
    }
    say(&format!("pm2 {VERSION}, by npm"));
    fs::create_dir_all(&place).with_context(|| format!("create `{}`", place.display()))?;
    command::run(
        Command::new("npm")
            .args([
                "install",
                "--loglevel=error",
                "--no-audit",
                "--no-fund",
                "--no-update-notifier",
            ])
            // Nothing of it has to be compiled, so nothing that comes with a package needs to run.
            .arg("--ignore-scripts")
            .arg("--prefix")
            .arg(&place)
            .arg(format!("pm2@{VERSION}")),
    )
    .context("install pm2")
}

/// What the module says of itself.
fn installed_version(place: &Path) -> Option<String> {
    let manifest = fs::read_to_string(place.join("node_modules/pm2/package.json")).ok()?;
    // The modules that it depends on are named with more space before them.
    let line = manifest.lines().find_map(|line| line.strip_prefix("  \"version\": \""))?;
    line.split('"').next().map(str::to_owned)
}

const VERSION: &str = "7.0.4";
