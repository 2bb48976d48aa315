//! The source of `core`, of exactly the pinned compiler.
//!
//! There is no compiled `core` for BPF, so each build makes its own. rustup delivers the source where it can download.
//! Where it cannot, Debian's package of the same version has the same files, and apt checks its signature.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    command, layout,
    setup::{debian, say},
};

/// Installs the source unless it is there.
///
/// # Errors
///
/// When neither rustup nor Debian delivers it.
pub(super) fn ensure(root: &Path) -> Result<()> {
    let library = library()?;
    if is_complete(&library) {
        return Ok(());
    }
    say("rust-src, the source of the compiler's library, by rustup");
    let rustup = command::run_quietly_within(
        Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(root),
        RUSTUP_LIMIT,
    );
    if rustup.is_ok() && is_complete(&library) {
        return Ok(());
    }
    say("rust-src from Debian, because rustup does not deliver it here");
    from_debian(root, &library).context("install the source of the compiler's library")
}

fn library() -> Result<PathBuf> {
    let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library"))
}

/// cargo reads the lock file before it compiles anything; a package without it would be of no use.
fn is_complete(library: &Path) -> bool {
    library.join("Cargo.lock").is_file() && library.join("core/src/lib.rs").is_file()
}

fn from_debian(root: &Path, library: &Path) -> Result<()> {
    let version = rustc_version()?;
    let place = layout::tools(root).join("rust-src");
    let unpacked = debian::unpack(&debian::Package {
        // Only source, so the machine's own release does not matter.
        suite: SUITE,
        name: "rust-src",
        version: &format!("{version}+dfsg*"),
        place: &place,
    })?;
    put_in_place(&unpacked.join(format!("usr/src/rustc-{version}/library")), library)?;
    fs::remove_dir_all(&place).with_context(|| format!("remove `{}`", place.display()))
}

fn rustc_version() -> Result<String> {
    let line = command::output(Command::new("rustc").arg("--version"))?;
    line.split_whitespace().nth(1).map(str::to_owned).context("`rustc --version` names no version")
}

/// Copies aside and renames, so that an interrupted copy is never taken for the whole.
fn put_in_place(source: &Path, library: &Path) -> Result<()> {
    ensure!(is_complete(source), "`{}` is not the source of the library", source.display());
    let folder = library.parent().context("the library has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create `{}`", folder.display()))?;
    let aside = tempfile::tempdir_in(folder)
        .with_context(|| format!("create a folder in `{}`", folder.display()))?;
    let copy = aside.path().join("library");
    command::run(Command::new("cp").arg("--recursive").arg(source).arg(&copy))?;
    if library.exists() {
        fs::remove_dir_all(library).with_context(|| format!("remove `{}`", library.display()))?;
    }
    fs::rename(&copy, library).with_context(|| format!("rename to `{}`", library.display()))
}

/// rustup tries for minutes where a network swallows its packets; what it has to fetch is small.
const RUSTUP_LIMIT: Duration = Duration::from_secs(20);

/// The suite that has the pinned version.
const SUITE: &str = "trixie-backports";
