//! `cargo xtask check`: everything that can be said about the code without running it.

mod licences;

use std::path::Path;

use anyhow::{Result, bail};

use crate::{build, command, setup};

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
