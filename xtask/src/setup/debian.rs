//! Packages of Debian: installed for the system, or only listed, downloaded and unpacked.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{command, layout, setup::say};

/// A suite of Debian, with lists and a cache of our own below `place`: the machine's own sources are not touched, whatever
/// the machine runs, and root is not needed.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    pub(crate) name: String,
    /// Of the packages; the machine's own where there is none.
    pub(crate) architecture: Option<&'static str>,
    pub(crate) place: PathBuf,
}

impl Suite {
    /// Brings the lists up to date, and has apt check their signature. If that fails those from before are still there.
    ///
    /// # Errors
    ///
    /// When the machine has no mirror of Debian, and when the mirror has no such suite or cannot be reached.
    pub(crate) fn refresh(&self) -> Result<()> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = self.place.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("create `{}`", folder.display()))?;
        }
        let list = self.place.join("sources.list");
        fs::write(&list, self.sources(&Mirrors::of_this_machine()?))
            .with_context(|| format!("write `{}`", list.display()))?;
        command::captured(self.apt("apt-get").arg("update")).map(drop)
    }

    /// What the lists say of every package in the suite.
    ///
    /// # Errors
    ///
    /// When there are no lists.
    pub(crate) fn available(&self) -> Result<String> {
        command::captured(self.apt("apt-cache").arg("dumpavail"))
    }

    /// Downloads packages into a folder, each as `NAME=VERSION`; in the version `*` stands for anything.
    ///
    /// # Errors
    ///
    /// When one cannot be had, or is not what the lists say.
    pub(crate) fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        let mut apt = self.apt("apt-get");
        command::captured(apt.current_dir(folder).arg("download").args(packages)).map(drop)
    }

    /// One line for the suite, and one for its security updates, which are in an archive of their own.
    fn sources(&self, mirrors: &Mirrors) -> String {
        let architecture = self.architecture.map(|name| format!("arch={name} "));
        let options = format!("{}signed-by={KEYRING}", architecture.unwrap_or_default());
        let mut text = format!("deb [{options}] {} {} main\n", mirrors.main, self.name);
        // Neither unstable nor backports have any.
        if let Some(security) = &mirrors.security
            && self.name != "sid"
            && !self.name.contains('-')
        {
            text.push_str(&format!("deb [{options}] {security} {}-security main\n", self.name));
        }
        text
    }

    fn apt(&self, tool: &str) -> Command {
        let mut apt = Command::new(tool);
        // What it complains of is looked into.
        apt.arg("--quiet=2").env("LC_ALL", "C.UTF-8");
        for (option, value) in [
            ("Dir::Etc::sourcelist", self.place.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::State::lists", self.place.join("lists")),
            ("Dir::Cache", self.place.join("cache")),
            // What is installed here is not in the suite.
            ("Dir::State::status", PathBuf::from("/dev/null")),
        ] {
            apt.arg("--option").arg(format!("{option}={}", value.display()));
        }
        if let Some(architecture) = self.architecture {
            for option in ["APT::Architecture", "APT::Architectures"] {
                apt.arg("--option").arg(format!("{option}={architecture}"));
            }
        }
        apt.args(OPTIONS.iter().flat_map(|option| ["--option", option]));
        apt
    }
}

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

/// Downloads a package and returns the folder that its files were unpacked to.
///
/// # Errors
///
/// When the machine has no mirror of Debian, and when the package cannot be had from it.
pub(super) fn unpack(package: &Package<'_>) -> Result<PathBuf> {
    let Package { suite, name, version, place } = package;
    let suite = Suite { name: (*suite).to_owned(), architecture: None, place: place.to_path_buf() };
    suite.refresh()?;
    let packages = place.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("create `{}`", packages.display()))?;
    suite.download(&[format!("{name}={version}")], &packages)?;
    let unpacked = place.join("unpacked");
    extract_all(&packages, &unpacked)?;
    Ok(unpacked)
}

/// Unpacks every package in a folder into another one.
///
/// # Errors
///
/// When there is none, and when one is damaged.
pub(crate) fn extract_all(packages: &Path, place: &Path) -> Result<()> {
    let files = fs::read_dir(packages)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .with_context(|| format!("read `{}`", packages.display()))?;
    ensure!(!files.is_empty(), "apt left no package in `{}`", packages.display());
    files.iter().try_for_each(|file| {
        command::run(Command::new("dpkg-deb").arg("--extract").arg(file.path()).arg(place))
    })
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

/// Where the machine itself gets its packages from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    /// Security updates come from an archive of their own, which has no other suites.
    security: Option<String>,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        let listing = || {
            command::output(Command::new("apt-get").args([
                "indextargets",
                "Created-By: Packages",
                "Origin: Debian",
                "--format",
                "$(LABEL)\t$(SITE)",
            ]))
        };
        if let Some(mirrors) = Self::among(&listing()?) {
            return Ok(mirrors);
        }
        // The origin is known only from the lists, and an image may come without.
        command::run(Command::new("apt-get").args(["--quiet=2", "update"]))?;
        Self::among(&listing()?).context("apt knows no mirror of Debian here")
    }

    fn among(listing: &str) -> Option<Self> {
        let archive = |label: &str| {
            let mut lines = listing.lines().filter_map(|line| line.split_once('\t'));
            lines.find(|(name, _)| *name == label).map(|(_, site)| site.to_owned())
        };
        Some(Self { main: archive("Debian")?, security: archive("Debian-Security") })
    }
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

/// The same for every suite.
const OPTIONS: [&str; 6] = [
    // apt would change to a user that cannot reach a folder of ours.
    "APT::Sandbox::User=",
    // What cannot be fetched is a failure: a suite is of no use without its lists.
    "APT::Update::Error-Mode=any",
    "Acquire::Languages=none",
    "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    // Lists take a quarter of the space.
    "Acquire::GzipIndexes=true",
    // A network that swallows packets is noticed in less than a minute.
    "Acquire::http::Timeout=15",
];

/// Signs what Debian's archives have.
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
    use std::path::PathBuf;

    use super::{KEYRING, Mirrors, Suite, is};

    #[test]
    fn a_unit_is_known_whatever_its_version() {
        assert!(is("php8.2-fpm.service", "php*-fpm.service"));
        assert!(!is("php-fpm.service", "php*-fpm.service"));
        assert!(is("caddy.service", "caddy.service"));
        assert!(!is("caddy-api.service", "caddy.service"));
    }

    #[test]
    fn the_mirrors_are_told_apart_by_their_labels() {
        let listing = "Debian-Security\thttp://mirror.example/debian-security\nDebian\thttp://mirror.example/debian\n";
        let mirrors = Mirrors::among(listing).unwrap();
        assert_eq!(mirrors.main, "http://mirror.example/debian");
        assert_eq!(mirrors.security.as_deref(), Some("http://mirror.example/debian-security"));
        assert_eq!(Mirrors::among(""), None);
    }

    #[test]
    fn only_stable_suites_have_security_updates() {
        let mirrors = Mirrors { main: "main".to_owned(), security: Some("security".to_owned()) };
        let sources = |name: &str| {
            let place = PathBuf::new();
            let suite = Suite { name: name.to_owned(), architecture: Some("arm64"), place };
            suite.sources(&mirrors)
        };
        let options = format!("deb [arch=arm64 signed-by={KEYRING}]");
        assert_eq!(
            sources("trixie"),
            format!("{options} main trixie main\n{options} security trixie-security main\n")
        );
        assert_eq!(sources("sid"), format!("{options} main sid main\n"));
        assert_eq!(sources("trixie-backports"), format!("{options} main trixie-backports main\n"));
    }
}
