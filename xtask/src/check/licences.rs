//! The licences of what the agent is built from.
//!
//! `cargo deny` does this, and more, where it is installed. Where it is not, the same allow list is applied to what the
//! packages say about themselves, so that the answer never depends on the machine.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

use crate::{command, layout};

/// Checks the licence of every dependency against the list in `deny.toml`.
///
/// # Errors
///
/// When a dependency is under none of the allowed licences, or names none.
pub(super) fn check(root: &Path) -> Result<()> {
    if layout::on_path("cargo-deny").is_some() {
        return command::run(command::cargo(root).args([
            "deny",
            "--offline",
            "check",
            "licenses",
            "bans",
            "sources",
        ]));
    }
    let allowed =
        allowed(&fs::read_to_string(root.join("deny.toml")).context("read `deny.toml`")?)?;
    let metadata = command::output(
        command::cargo(root)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
            .arg(host_platform()?),
    )?;
    let refused = refused(&serde_json::from_str(&metadata)?, &allowed)?;
    eprintln!(
        "licences: advisories need the online database: `cargo install cargo-deny`, then `cargo deny check`"
    );
    if !refused.is_empty() {
        bail!("not allowed by `deny.toml`: {}", refused.join(", "));
    }
    Ok(())
}

/// The platform we run on: what other platforms would need is not part of any build here.
fn host_platform() -> Result<String> {
    let version = command::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

/// The allow list of a `deny.toml`.
fn allowed(deny: &str) -> Result<Vec<Licensee>> {
    let deny: toml::Table = deny.parse().context("parse `deny.toml`")?;
    let list = deny
        .get("licenses")
        .and_then(|licences| licences.get("allow"))
        .and_then(toml::Value::as_array);
    list.context("`deny.toml` has no `licenses.allow`")?
        .iter()
        .map(|licence| {
            let licence =
                licence.as_str().context("`licenses.allow` has an entry that is not text")?;
            Licensee::parse(licence).with_context(|| format!("`licenses.allow` has `{licence}`"))
        })
        .collect()
}

/// The foreign packages that none of the allowed licences covers, each with what it says about itself.
fn refused(metadata: &Value, allowed: &[Licensee]) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("the metadata has no packages")?;
    // What has no source is part of the workspace.
    let foreign = packages.iter().filter(|package| !package["source"].is_null());
    let refused = foreign.filter_map(|package| {
        let licence = package["license"].as_str().unwrap_or("no licence");
        (!is_allowed(licence, allowed)).then(|| {
            let text = |key: &str| package[key].as_str().unwrap_or("?").to_owned();
            format!("{} {} ({licence})", text("name"), text("version"))
        })
    });
    Ok(refused.collect())
}

/// Older packages separate alternatives by a slash, which the lax mode reads as `OR`.
fn is_allowed(licence: &str, allowed: &[Licensee]) -> bool {
    Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|expression| {
        expression.evaluate(|required| allowed.iter().any(|one| one.satisfies(required)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{allowed, is_allowed, refused};

    const DENY: &str = r#"licenses = { allow = ["MIT", "Apache-2.0", "Unicode-3.0"] }"#;

    #[test]
    fn an_alternative_is_enough() {
        let allowed = allowed(DENY).unwrap();
        assert!(is_allowed("MIT", &allowed));
        assert!(is_allowed("GPL-3.0-only OR MIT", &allowed));
        assert!(is_allowed("Unlicense/MIT", &allowed));
        assert!(!is_allowed("GPL-3.0-only", &allowed));
    }

    #[test]
    fn every_part_of_a_conjunction_counts() {
        let allowed = allowed(DENY).unwrap();
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &allowed));
        assert!(!is_allowed("MIT AND GPL-2.0-only", &allowed));
    }

    #[test]
    fn an_exception_is_a_licence_of_its_own() {
        let with_exception = "Apache-2.0 WITH LLVM-exception";
        assert!(!is_allowed(with_exception, &allowed(DENY).unwrap()));
        let listed =
            allowed(r#"licenses = { allow = ["Apache-2.0 WITH LLVM-exception"] }"#).unwrap();
        assert!(is_allowed(with_exception, &listed));
        assert!(!is_allowed("Apache-2.0", &listed));
    }

    #[test]
    fn what_is_not_a_licence_is_refused() {
        let allowed = allowed(DENY).unwrap();
        assert!(!is_allowed("no licence", &allowed));
        assert!(!is_allowed("", &allowed));
    }

    #[test]
    fn only_foreign_packages_are_judged() {
        let metadata = json!({ "packages": [
            { "name": "ours", "version": "1.0.0", "source": null, "license": "Secret" },
            { "name": "good", "version": "1.0.0", "source": "registry", "license": "MIT" },
            { "name": "bad", "version": "2.0.0", "source": "registry", "license": null },
        ]});
        assert_eq!(
            refused(&metadata, &allowed(DENY).unwrap()).unwrap(),
            ["bad 2.0.0 (no licence)"]
        );
    }

    #[test]
    fn a_list_with_nonsense_is_an_error() {
        assert!(allowed(r#"licenses = { allow = ["Nonsense"] }"#).is_err());
        assert!(allowed("").is_err());
    }
}
