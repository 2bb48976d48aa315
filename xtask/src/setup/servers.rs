//! The servers that the tests upgrade, as their users have them: unmodified, from the distribution.

use anyhow::Result;

use crate::{layout, setup::debian};

/// Installs the servers that are missing, wherever the others come from.
///
/// # Errors
///
/// When one cannot be installed.
pub(super) fn ensure() -> Result<()> {
    install(&missing(is_there))
}

/// The same for the server that the demo shows, and for what makes its namespace.
///
/// # Errors
///
/// When one cannot be installed.
pub(super) fn ensure_for_demo() -> Result<()> {
    install(&missing(|program| !DEMO.contains(&program) || is_there(program)))
}

fn is_there(program: &str) -> bool {
    layout::on_path(program).is_some()
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() { Ok(()) } else { debian::install(missing) }
}

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|&(_, package)| package).collect()
}

/// Each program, and the package that has it. `ip` makes the namespaces.
const PROGRAMS: [(&str, &str); 5] = [
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    ("node", "nodejs"),
    ("python3", "python3"),
    ("ip", "iproute2"),
];

/// What the demo needs of them.
const DEMO: [&str; 2] = ["nginx", "ip"];

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing(|program| program != "node"), ["nodejs"]);
        assert!(missing(|_| true).is_empty());
    }
}
