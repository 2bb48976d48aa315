//! The linker for BPF objects.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{command, layout, setup::say};

/// Installs the linker unless this very version is there.
///
/// # Errors
///
/// When it does not build.
pub(super) fn ensure(root: &Path) -> Result<()> {
    if installed_version(&layout::bpf_linker(root)).as_deref() == Some(VERSION) {
        return Ok(());
    }
    say(&format!("bpf-linker {VERSION}, built from source (takes a minute or two)"));
    command::run(
        command::cargo(root)
            .args([
                "install",
                "bpf-linker",
                "--version",
                VERSION,
                "--locked",
                "--quiet",
                "--force",
                "--root",
            ])
            .arg(layout::tools(root)),
    )
    .context("install bpf-linker")
}

fn installed_version(linker: &Path) -> Option<String> {
    let output = Command::new(linker).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// The last release that works with the LLVM inside the pinned compiler. Later ones want one from the system.
const VERSION: &str = "0.10.4";
