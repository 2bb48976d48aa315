//! A server that hands its listener on by itself, to compare with: Debian has the library, and the Go that it is for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    command, layout,
    setup::{debian, say},
};

/// Builds the server unless that was done since its source last changed.
///
/// # Errors
///
/// When Go or the library cannot be installed, and when the server does not compile.
pub(super) fn ensure(root: &Path) -> Result<()> {
    let source = root.join("bench/servers/tableflip");
    let server = layout::tools(root).join("bin/tableflip-server");
    let time = |file: &Path| fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
    if time(&server).is_some_and(|built| time(&source.join("main.go")) <= Some(built)) {
        return Ok(());
    }
    let go = PathBuf::from(GO);
    if !go.is_file() || !Path::new(LIBRARY).is_dir() {
        debian::install(&["golang-go", "golang-github-cloudflare-tableflip-dev"])?;
    }
    say("the tableflip server of the comparison");
    command::run(
        Command::new(go)
            .args(["build", "-o"])
            .arg(&server)
            .arg(".")
            .current_dir(&source)
            // Debian's libraries are there as source, for the way of Go before modules.
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOCACHE", layout::tools(root).join("go/cache-debian"))
            .env("GOENV", "off")
            .env("CGO_ENABLED", "0"),
    )
    .context("build the tableflip server")
}

/// Debian's own, which need not be the first one on the path.
const GO: &str = "/usr/bin/go";
const LIBRARY: &str = "/usr/share/gocode/src/github.com/cloudflare/tableflip";
