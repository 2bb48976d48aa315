//! The servers that the tests upgrade, as their users have them: unmodified, from the distribution.

use anyhow::Result;

use crate::{layout, setup::debian};

/// Installs the servers that are missing, wherever the others come from.
///
/// # Errors
///
/// When one cannot be installed.
pub(super) fn ensure() -> Result<()> {
    let missing = missing(|program| layout::on_path(program).is_some());
    if missing.is_empty() { Ok(()) } else { debian::install(&missing) }
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

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing(|program| program != "node"), ["nodejs"]);
        assert!(missing(|_| true).is_empty());
    }
}
