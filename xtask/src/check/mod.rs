//! `cargo xtask check`: everything that can be said about the code without running it.

mod documents;
mod licences;

use std::path::Path;

use anyhow::{Result, bail};

use crate::{build, command, setup};

/// Applies the fixes that clippy is sure of, then formats, because a fix need not be formatted.
///
/// # Errors
///
/// When the code does not compile, with or without the fixes.
pub(crate) fn fix(root: &Path) -> Result<()> {
    setup::for_build(root)?;
    build::programs(root)?;
    // Whoever calls this before a commit has changes that are not committed: that is the point.
    let fix = ["--fix", "--allow-dirty", "--allow-staged"];
    command::run(command::cargo(root).args(["clippy", "--workspace", "--all-targets"]).args(fix))?;
    command::run(build::cargo_for_bpf(root, "clippy").args(fix))?;
    command::run(command::cargo(root).args(["fmt", "--all"]))
}

/// Runs all checks, whatever their outcome, and lists the failures at the end.
///
/// # Errors
///
/// When at least one check fails.
pub(crate) fn run(root: &Path) -> Result<()> {
    setup::for_build(root)?;
    // First, because the agent does not compile without its programs.
    let outcomes = [
        ("programs", build::programs(root)),
        ("format", format(root)),
        ("clippy", clippy(root)),
        ("clippy of the programs", clippy_of_the_programs(root)),
        ("documentation", documentation(root)),
        ("licences", licences::check(root)),
        ("documents", documents::check(root)),
    ];
    match summary(&outcomes) {
        None => Ok(()),
        Some(failures) => bail!("{failures}"),
    }
}

fn format(root: &Path) -> Result<()> {
    command::run(command::cargo(root).args(["fmt", "--all", "--check"]))
}

fn clippy(root: &Path) -> Result<()> {
    command::run(command::cargo(root).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))
}

fn clippy_of_the_programs(root: &Path) -> Result<()> {
    command::run(build::cargo_for_bpf(root, "clippy").args(["--", "-Dwarnings"]))
}

fn documentation(root: &Path) -> Result<()> {
    command::run(
        command::cargo(root)
            .args(["doc", "--no-deps", "--document-private-items", "--workspace"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )
}

/// One line for each failure, or nothing when there is none.
fn summary(outcomes: &[(&str, Result<()>)]) -> Option<String> {
    let failures: Vec<String> = outcomes
        .iter()
        .filter_map(|(name, outcome)| {
            outcome.as_ref().err().map(|error| format!("\n  {name}: {error:#}"))
        })
        .collect();
    (!failures.is_empty()).then(|| {
        format!("{} of {} checks failed:{}", failures.len(), outcomes.len(), failures.concat())
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::summary;

    #[test]
    fn every_failure_is_listed() {
        assert_eq!(summary(&[("a", Ok(()))]), None);
        let failures = [
            ("a", Err(anyhow!("one"))),
            ("b", Ok(())),
            ("c", Err(anyhow!("two").context("three"))),
        ];
        assert_eq!(summary(&failures).unwrap(), "2 of 3 checks failed:\n  a: one\n  c: three: two");
    }
}
