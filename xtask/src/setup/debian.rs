//! Packages of Debian: installed for the system, or only unpacked.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{command, layout, setup::say};

/// A package to look into without installing it.
#[derive(Debug)]
pub(super) struct Package<'a> {
    /// The suite that has it, whatever suite the machine runs.
    pub(super) suite: &'a str,
    pub(super) name: &'a str,
    /// As apt takes it: `*` stands for anything.
    pub(super) version: &'a str,
    /// A folder for all that is downloaded and unpacked.
    pub(super) place: &'a Path,
}

/// Downloads a package, has apt check its signature, and returns the folder that its files were unpacked to.
///
/// The machine's own sources are not touched: apt gets lists, caches and one source of its own. It needs no root.
///
/// # Errors
///
/// When the machine has no mirror of Debian, and when the package cannot be had from it.
pub(super) fn unpack(package: &Package<'_>) -> Result<PathBuf> {
    let Package { suite, name, version, place } = package;
    let source = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
    for folder in ["lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(place.join(folder))
            .with_context(|| format!("create `{}`", place.display()))?;
    }
    let list = place.join("sources.list");
    fs::write(&list, source).with_context(|| format!("write `{}`", list.display()))?;

    let packages = place.join("packages");
    command::run(private_apt(place).arg("update"))?;
    command::run(
        private_apt(place).current_dir(&packages).args(["download", &format!("{name}={version}")]),
    )?;
    let files = fs::read_dir(&packages)?.collect::<io::Result<Vec<_>>>()?;
    let [file] = files.as_slice() else {
        bail!("apt left {} files instead of one in `{}`", files.len(), packages.display());
    };
    let unpacked = place.join("unpacked");
    command::run(Command::new("dpkg-deb").arg("--extract").arg(file.path()).arg(&unpacked))?;
    Ok(unpacked)
}

/// Installs packages, without starting the services in them and without having them start with the machine.
///
/// # Errors
///
/// Without root, and when a package cannot be had.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let words = packages.join(" ");
    ensure!(
        layout::on_path("apt-get").is_some(),
        "install what Debian has as `{words}`: there is no apt-get here"
    );
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run this as root, or install by hand: `apt-get install {words}`"
    );
    say(&format!("the packages {words}"));
    let _policy = NoServices::declare()?;
    // The lists of a fresh machine are empty, those of an old one name files that are gone.
    if command::run(&mut apt_install(packages)).is_err() {
        command::run(Command::new("apt-get").args(["--quiet=2", "update"]))?;
        command::run(&mut apt_install(packages))?;
    }
    disable_services(packages)
}

fn apt_install(packages: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["--quiet=2", "--yes", "--no-install-recommends", "install"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// The policy keeps services from being started now; this keeps them from being started at the next boot.
fn disable_services(packages: &[&str]) -> Result<()> {
    if layout::on_path("systemctl").is_none() {
        return Ok(());
    }
    let installed = fs::read_dir(UNITS).with_context(|| format!("read `{UNITS}`"))?;
    let mut units = Vec::new();
    for file in installed {
        let name = file?.file_name().to_string_lossy().into_owned();
        if SERVICES.iter().any(|(package, unit)| packages.contains(package) && is(&name, unit)) {
            units.push(name);
        }
    }
    if units.is_empty() {
        return Ok(());
    }
    command::run(Command::new("systemctl").args(["--quiet", "disable"]).args(units))
}

/// Whether a unit is the one that is meant, in which `*` stands for a version.
fn is(unit: &str, meant: &str) -> bool {
    match meant.split_once('*') {
        None => unit == meant,
        Some((before, after)) => {
            let version = unit.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
        }
    }
}

fn private_apt(place: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    apt.arg("--quiet=2");
    for (option, value) in [
        ("Dir::Etc::sourcelist", place.join("sources.list")),
        ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
        ("Dir::State::lists", place.join("lists")),
        ("Dir::Cache", place.join("cache")),
    ] {
        apt.arg("--option").arg(format!("{option}={}", value.display()));
    }
    // apt would change to a user that cannot reach a folder of ours.
    apt.args(["--option", "APT::Sandbox::User="]);
    apt
}

/// The mirror that the machine itself uses.
fn mirror() -> Result<String> {
    let listing = || {
        command::output(Command::new("apt-get").args([
            "indextargets",
            "Created-By: Packages",
            "Origin: Debian",
            "--format",
            "$(LABEL)\t$(SITE)",
        ]))
    };
    if let Some(mirror) = main_archive(&listing()?) {
        return Ok(mirror);
    }
    // The origin is known only from the lists, and an image may come without.
    command::run(Command::new("apt-get").args(["--quiet=2", "update"]))?;
    main_archive(&listing()?).context("apt knows no mirror of Debian here")
}

/// Security updates come from an archive of their own, which has no other suites.
fn main_archive(listing: &str) -> Option<String> {
    listing
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .find(|&(label, _)| label == "Debian")
        .map(|(_, site)| site.to_owned())
}

/// While this lives, installing a package starts nothing: a server on a well-known port is nobody's wish here.
struct NoServices {
    /// Where we put the policy; nothing when the machine has one, which we respect.
    ours: Option<&'static Path>,
}

impl NoServices {
    fn declare() -> Result<Self> {
        let path = Path::new(POLICY);
        let policy = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
        match policy {
            Ok(mut file) => {
                let guard = Self { ours: Some(path) };
                io::Write::write_all(&mut file, b"#!/bin/sh\nexit 101\n")
                    .with_context(|| format!("write `{POLICY}`"))?;
                Ok(guard)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { ours: None }),
            Err(error) => Err(error).with_context(|| format!("create `{POLICY}`")),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.ours
            && let Err(error) = fs::remove_file(path)
        {
            say(&format!("remove `{}` by hand: {error}", path.display()));
        }
    }
}

/// Signs what Debian's main archive has.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Asked by every package before it starts a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The units that come enabled with a package.
const SERVICES: [(&str, &str); 6] = [
    ("nginx-light", "nginx.service"),
    ("redis-server", "redis-server.service"),
    ("haproxy", "haproxy.service"),
    ("lighttpd", "lighttpd.service"),
    ("caddy", "caddy.service"),
    ("php-fpm", "php*-fpm.service"),
];

/// Where packages have their units.
const UNITS: &str = "/usr/lib/systemd/system";

#[cfg(test)]
mod tests {
    use super::{is, main_archive};

    #[test]
    fn a_unit_is_known_whatever_its_version() {
        assert!(is("php8.2-fpm.service", "php*-fpm.service"));
        assert!(!is("php-fpm.service", "php*-fpm.service"));
        assert!(is("caddy.service", "caddy.service"));
        assert!(!is("caddy-api.service", "caddy.service"));
    }

    #[test]
    fn the_mirror_is_the_main_archive() {
        let listing = "Debian-Security\thttp://mirror.example/debian-security\nDebian\thttp://mirror.example/debian\n";
        assert_eq!(main_archive(listing).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(main_archive(""), None);
    }
}
