//! The servers that the tests upgrade, as their users have them: unmodified, from the distribution. And what looks at the
//! kernel for us, and what other kernels run in.

use anyhow::Result;

use crate::{layout, setup::debian};

/// Installs the servers that are missing, wherever the others come from.
///
/// # Errors
///
/// When one cannot be installed.
pub(super) fn ensure() -> Result<()> {
    install(&missing(&TESTS, is_there))
}

/// The same for the server that the demo shows, and for what makes its namespace.
///
/// # Errors
///
/// When one cannot be installed.
pub(super) fn ensure_for_demo() -> Result<()> {
    install(&missing(&DEMO, is_there))
}

/// The same for the server that is measured, and for what reads the kernel's counts.
///
/// # Errors
///
/// When one cannot be installed.
pub(super) fn ensure_for_measure() -> Result<()> {
    install(&missing(&MEASURE, is_there))
}

/// The same for all that is compared, beside what the tests need.
///
/// # Errors
///
/// When one cannot be installed.
pub(super) fn ensure_for_bench() -> Result<()> {
    install(&missing(&BENCH, is_there))
}

/// The same for what boots other kernels, and for what unpacks them.
///
/// # Errors
///
/// When one cannot be installed.
pub(super) fn ensure_for_kernels() -> Result<()> {
    install(&missing(&KERNELS, is_there))
}

fn is_there(program: &str) -> bool {
    layout::on_path(program).is_some() || layout::with_version_on_path(program).is_some()
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() { Ok(()) } else { debian::install(missing) }
}

fn missing(wanted: &[&str], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let missing =
        PROGRAMS.iter().filter(|(program, _)| wanted.contains(program) && !is_there(program));
    missing.map(|&(_, package)| package).collect()
}

/// Each program, and the package that has it. `ip` makes the namespaces, `nft` loses packets in them; `systemd-analyze` stands for
/// all of systemd.
const PROGRAMS: [(&str, &str); 24] = [
    ("systemd-analyze", "systemd"),
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3"),
    ("ip", "iproute2"),
    ("bpftool", "bpftool"),
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("gunicorn", "gunicorn"),
    ("uvicorn", "uvicorn"),
    ("puma", "puma"),
    ("php-fpm", "php-fpm"),
    ("lighttpd", "lighttpd"),
    ("apache2", "apache2-bin"),
    ("caddy", "caddy"),
    ("runsv", "runit"),
    ("javac", "default-jdk-headless"),
    ("socat", "socat"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// What the tests need of them.
const TESTS: [&str; 19] = [
    "systemd-analyze",
    "nginx",
    "redis-server",
    "node",
    "npm",
    "python3",
    "ip",
    "nft",
    "bpftool",
    "haproxy",
    "gunicorn",
    "uvicorn",
    "puma",
    "php-fpm",
    "lighttpd",
    "apache2",
    "caddy",
    "runsv",
    "javac",
];

/// What the demo needs.
const DEMO: [&str; 2] = ["nginx", "ip"];

/// What measuring needs.
const MEASURE: [&str; 3] = ["nginx", "ip", "bpftool"];

/// What is compared with.
const BENCH: [&str; 3] = ["haproxy", "gunicorn", "socat"];

/// What other kernels need.
const KERNELS: [&str; 4] = ["qemu-system-x86_64", "qemu-system-aarch64", "xz", "zstd"];

#[cfg(test)]
mod tests {
    use super::{DEMO, MEASURE, TESTS, missing};

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing(&TESTS, |program| program != "node"), ["nodejs"]);
        assert!(missing(&TESTS, |_| true).is_empty());
    }

    #[test]
    fn only_what_is_wanted_is_installed() {
        assert_eq!(missing(&DEMO, |_| false), ["nginx-light", "iproute2"]);
        assert_eq!(missing(&MEASURE, |program| program != "bpftool"), ["bpftool"]);
    }
}
