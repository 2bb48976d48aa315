//! Kernels from Debian's archive, kept below `target/` by the names of their releases.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

use anyhow::{Context, Error, Result, bail};

use super::{
    choice::{self, Choice},
    matrix::Row,
};
use crate::{
    command, layout,
    setup::debian::{self, Suite},
};

/// The archive, with what was fetched from it before.
#[derive(Debug)]
pub(super) struct Archive {
    place: PathBuf,
    /// Rows of one suite share its lists.
    lists: HashMap<Key, OnceLock<Lists>>,
    /// Rows of one kernel fetch it once.
    fetching: Mutex<()>,
}

/// A suite, and an architecture as Debian calls it.
type Key = (String, &'static str);

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// What it calls itself.
    pub(super) release: String,
    folder: PathBuf,
}

impl Kernel {
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join(IMAGE)
    }

    /// Each with the name that it has to have in the guest, in the order in which they need each other.
    pub(super) fn modules(&self) -> Vec<(String, PathBuf)> {
        let modules = MODULES.iter().enumerate();
        let named = modules.map(|(number, module)| {
            (format!("{number}-{module}.ko"), self.folder.join(format!("{module}.ko")))
        });
        named.filter(|(_, path)| path.is_file()).collect()
    }
}

/// Why there is no kernel for a row, in words. Nothing is wrong with the agent then.
#[derive(Clone, Debug)]
pub(super) struct Gap(pub(super) String);

/// The lists of a suite.
#[derive(Debug)]
struct Lists {
    suite: Suite,
    /// Why they are those of an earlier run, if they are.
    stale: Option<Stale>,
    /// What it has of kernels. Empty if it was never seen.
    available: String,
}

/// Why lists could not be brought up to date.
#[derive(Debug, PartialEq, Eq)]
enum Stale {
    /// The mirror was reached, and has no suite of this name.
    NoSuite(String),
    /// Something else, in apt's words.
    Unreachable(String),
}

impl Stale {
    fn of(suite: &str, error: &Error) -> Self {
        let words = format!("{error:#}");
        match words.trim_end().ends_with(NO_SUITE) {
            true => Self::NoSuite(suite.to_owned()),
            false => Self::Unreachable(format!("{suite}: {words}")),
        }
    }

    fn gap(&self) -> Gap {
        Gap(match self {
            Self::NoSuite(name) => format!("Debian has no suite `{name}`"),
            Self::Unreachable(why) => format!("no network and not in the cache ({why})"),
        })
    }
}

/// What apt says of a suite whose directory the mirror does not have.
const NO_SUITE: &str = "does not have a Release file.";

impl Archive {
    /// For these rows; nothing is fetched yet.
    pub(super) fn new(root: &Path, rows: &[Row]) -> Self {
        let keys = rows.iter().flat_map(|row| {
            let architecture = row.configuration.architecture();
            row.suites.iter().map(move |suite| (suite.clone(), architecture))
        });
        Self {
            place: layout::kernels(root),
            lists: keys.map(|key| (key, OnceLock::new())).collect(),
            fetching: Mutex::new(()),
        }
    }

    /// The newest kernel that a row asks for, fetched unless that was done before.
    ///
    /// # Errors
    ///
    /// A gap, if the archive has no such kernel or cannot be reached.
    pub(super) fn kernel(&self, row: &Row) -> Result<Kernel, Gap> {
        let all: Vec<&Lists> = row.suites.iter().map(|suite| self.lists(suite, row)).collect();
        let newest = all
            .iter()
            .filter_map(|lists| Some((lists.newest(row)?, *lists)))
            .max_by(|(one, _), (other, _)| one.version.cmp(&other.version));
        let Some((choice, lists)) = newest else {
            let stale = all.iter().find_map(|lists| lists.stale.as_ref());
            let none =
                || Gap(format!("{} has no such kernel with its modules", row.suites.join(", ")));
            return Err(stale.map_or_else(none, Stale::gap));
        };
        self.fetched(&choice, lists)
    }

    fn lists(&self, suite: &str, row: &Row) -> &Lists {
        let architecture = row.configuration.architecture();
        let lists = self.lists.get(&(suite.to_owned(), architecture));
        lists.expect("the archive was made for the rows").get_or_init(|| {
            let place = self.place.join("lists").join(format!("{suite}-{architecture}"));
            let architecture = Some(architecture);
            Lists::fetch(Suite { name: suite.to_owned(), architecture, place })
        })
    }

    fn fetched(&self, choice: &Choice, lists: &Lists) -> Result<Kernel, Gap> {
        let folder = self.place.join(&choice.release);
        let kernel = Kernel { release: choice.release.clone(), folder };
        let _one_at_a_time = self.fetching.lock().unwrap_or_else(|broken| broken.into_inner());
        if kernel.image().is_file() {
            return Ok(kernel);
        }
        match self.fetch(choice, lists, &kernel.folder) {
            Ok(()) => Ok(kernel),
            Err(error) if lists.stale.is_some() => {
                Err(Gap(format!("no network and not in the cache ({error:#})")))
            }
            Err(error) => Err(Gap(format!("{} cannot be fetched: {error:#}", choice.release))),
        }
    }

    /// Puts the parts together aside and renames, so that an interrupted run leaves no half of a kernel.
    fn fetch(&self, choice: &Choice, lists: &Lists, folder: &Path) -> Result<()> {
        let aside = tempfile::tempdir_in(&self.place)
            .with_context(|| format!("create a folder in `{}`", self.place.display()))?;
        let [packages, unpacked, whole] =
            ["packages", "unpacked", "whole"].map(|name| aside.path().join(name));
        for folder in [&packages, &whole] {
            fs::create_dir(folder).with_context(|| format!("create `{}`", folder.display()))?;
        }
        lists.suite.download(&choice.packages, &packages)?;
        debian::extract_all(&packages, &unpacked)?;
        take_parts(&choice.release, &unpacked, &whole)?;
        fs::rename(&whole, folder).with_context(|| format!("rename to `{}`", folder.display()))
    }
}

impl Lists {
    fn fetch(suite: Suite) -> Self {
        let stale = suite.refresh().err().map(|error| Stale::of(&suite.name, &error));
        // Of kernels only: all else is some sixty thousand packages.
        let available = suite.available().unwrap_or_default();
        let of_kernels = available.split("\n\n").filter(|it| it.starts_with("Package: linux-"));
        let available = of_kernels.collect::<Vec<_>>().join("\n\n");
        Self { suite, stale, available }
    }

    fn newest(&self, row: &Row) -> Option<Choice> {
        let mut flavours = row.configuration.flavours().iter();
        flavours.find_map(|flavour| choice::newest(&self.available, row.series.as_deref(), flavour))
    }
}

/// Takes the kernel and the modules that are needed out of its packages. A module that is not there may be built in.
fn take_parts(release: &str, packages: &Path, place: &Path) -> Result<()> {
    let own = |top: &str| packages.join(format!("{top}lib/modules/{release}"));
    let folders = [own("usr/"), own("")];
    let mut images = vec![packages.join("boot").join(format!("vmlinuz-{release}"))];
    images.extend(folders.iter().map(|folder| folder.join("vmlinuz")));
    let Some(image) = images.iter().find(|file| file.is_file()) else {
        bail!("there is no kernel in the packages of {release}");
    };
    for module in MODULES {
        let name = format!("kernel/net/ipv4/{module}.ko");
        for folder in &folders {
            take_module(&folder.join(&name), &place.join(format!("{module}.ko")))?;
        }
    }
    fs::copy(image, place.join(IMAGE))
        .with_context(|| format!("copy `{}`", image.display()))
        .map(drop)
}

/// Unpacked here: not every kernel can do it, and none is quick at it in a machine without hardware.
fn take_module(module: &Path, to: &Path) -> Result<()> {
    for (suffix, program) in [("", "cat"), (".xz", "xzcat"), (".zst", "zstdcat")] {
        let mut packed = module.as_os_str().to_owned();
        packed.push(suffix);
        if Path::new(&packed).is_file() {
            let file =
                fs::File::create(to).with_context(|| format!("create `{}`", to.display()))?;
            command::run(Command::new(program).arg(packed).stdout(file))?;
        }
    }
    Ok(())
}

/// What lists the connections of a port, in the order in which they need each other.
const MODULES: [&str; 2] = ["inet_diag", "tcp_diag"];

const IMAGE: &str = "kernel";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Archive, Gap, Kernel, Lists, NO_SUITE, Row, Stale, Suite, take_parts};

    /// Unpacks to a folder what a package would have.
    fn take(release: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Kernel) {
        let folder = tempfile::tempdir().unwrap();
        let [packages, place] = ["packages", "place"].map(|name| folder.path().join(name));
        for (path, content) in files {
            let file = packages.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        fs::create_dir(&place).unwrap();
        take_parts(release, &packages, &place).unwrap();
        (folder, Kernel { release: release.to_owned(), folder: place })
    }

    #[test]
    fn without_network_and_cache_a_kernel_is_a_gap_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let row: Row = "bookworm:6.1".parse().unwrap();
        let archive = Archive::new(folder.path(), std::slice::from_ref(&row));
        let suite = Suite { name: "bookworm".to_owned(), architecture: None, place: "".into() };
        let unreachable = Lists {
            suite,
            stale: Some(Stale::Unreachable("no route".to_owned())),
            available: String::new(),
        };
        archive.lists.values().next().unwrap().set(unreachable).unwrap();
        let Gap(words) = archive.kernel(&row).unwrap_err();
        assert_eq!(words, "no network and not in the cache (no route)");
    }

    #[test]
    fn a_suite_that_nobody_has_is_no_lack_of_a_network() {
        let error = |words: String| anyhow::Error::msg(words).context("`apt-get` failed");
        let none =
            error(format!("E: The repository 'http://mirror/debian foo Release' {NO_SUITE}"));
        assert_eq!(Stale::of("foo", &none).gap().0, "Debian has no suite `foo`");
        let away = error("E: Some index files failed to download.".to_owned());
        assert!(Stale::of("foo", &away).gap().0.starts_with("no network"));
    }

    #[test]
    fn an_older_kernel_is_below_boot() {
        let (_folder, kernel) = take(
            "6.1.0-9",
            &[
                ("boot/vmlinuz-6.1.0-9", "image"),
                ("lib/modules/6.1.0-9/kernel/net/ipv4/inet_diag.ko", "module"),
            ],
        );
        assert_eq!(fs::read_to_string(kernel.image()).unwrap(), "image");
        let [(name, path)] = &kernel.modules()[..] else { panic!("{:?}", kernel.modules()) };
        assert_eq!(name, "0-inet_diag.ko");
        assert_eq!(fs::read_to_string(path).unwrap(), "module");
    }

    #[test]
    fn a_newer_kernel_is_beside_its_modules() {
        let (_folder, kernel) = take(
            "7.3.4",
            &[
                ("usr/lib/modules/7.3.4/vmlinuz", "image"),
                ("usr/lib/modules/7.3.4/kernel/net/ipv4/tcp_diag.ko", "module"),
            ],
        );
        assert_eq!(fs::read_to_string(kernel.image()).unwrap(), "image");
        assert_eq!(kernel.modules()[0].0, "1-tcp_diag.ko");
    }
}
