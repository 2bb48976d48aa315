//! The newest kernel of a suite, from what apt says of its packages.

use std::collections::HashSet;

use super::version::Version;

/// A kernel in an archive, and the packages that have its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// What the kernel calls itself, and what comes behind `linux-image-` in the name of its package.
    pub(super) release: String,
    pub(super) version: Version,
    /// As apt takes them: `NAME=VERSION`.
    pub(super) packages: Vec<String>,
}

/// Chooses the newest kernel of a series and flavour, of all series where none is named.
///
/// One whose modules are not in the archive any more is passed over: without `tcp_diag` nobody can list connections.
pub(super) fn newest(available: &str, series: Option<&str>, flavour: &str) -> Option<Choice> {
    let packages: Vec<Package<'_>> = available.split("\n\n").filter_map(Package::read).collect();
    let there: HashSet<_> = packages.iter().map(|it| (it.name, it.version)).collect();
    packages
        .iter()
        .filter(|package| package.is_of(series, flavour))
        .map(Package::choice)
        .filter(|choice| choice.parts().all(|part| there.contains(&part)))
        .max_by(|one, other| one.version.cmp(&other.version))
}

impl Choice {
    fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.packages.iter().filter_map(|part| part.split_once('='))
    }
}

/// A paragraph of the lists.
#[derive(Debug)]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    depends: &'a str,
}

impl<'a> Package<'a> {
    fn read(paragraph: &'a str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = paragraph.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        Some(Self {
            name: field("Package")?,
            version: field("Version")?,
            depends: field("Depends").unwrap_or_default(),
        })
    }

    fn release(&self) -> Option<&'a str> {
        self.name.strip_prefix("linux-image-")
    }

    fn is_of(&self, series: Option<&str>, flavour: &str) -> bool {
        let abi = self
            .release()
            .and_then(|release| release.strip_suffix(flavour))
            .and_then(|before| before.strip_suffix('-'));
        let Some(abi) = abi else { return false };
        // Each part begins with a digit where there is no other flavour between: `6.1.0-9-rt` is none of `amd64`.
        let is_whole = abi.split('-').all(|part| part.starts_with(|it: char| it.is_ascii_digit()));
        let is_of_series = series.is_none_or(|series| {
            let rest = abi.strip_prefix(series);
            rest.is_some_and(|rest| !rest.starts_with(|it: char| it.is_ascii_digit()))
        });
        // A package without a kernel, which only leads to the newest one of a series.
        let leads_elsewhere = self.depends.contains("linux-image-");
        is_whole && is_of_series && !leads_elsewhere
    }

    /// Up to 6.18 the image has everything; from 6.19 on it only leads to its parts.
    fn choice(&self) -> Choice {
        let release = self.release().unwrap_or_default();
        let parts = ["linux-binary", "linux-modules"].map(|part| format!("{part}-{release}"));
        let parts = parts.iter().filter(|part| {
            let mut words = self.depends.split([' ', ',', '|']);
            words.any(|word| word == part.as_str())
        });
        let mut packages: Vec<String> =
            parts.map(|part| format!("{part}={}", self.version)).collect();
        if packages.is_empty() {
            packages.push(format!("{}={}", self.name, self.version));
        }
        Choice { release: release.to_owned(), version: Version::new(self.version), packages }
    }
}

#[cfg(test)]
mod tests {
    use super::newest;

    const AVAILABLE: &str = "\
Package: 0ad
Version: 0.27.0-2
Depends: 0ad-data

Package: linux-image-6.12.9+deb13-cloud-amd64
Version: 6.12.9-1
Depends: kmod, initramfs-tools (>= 0.120) | linux-initramfs-tool
Description: Linux 6.12 for x86-64 cloud (signed)

Package: linux-image-6.12.10+deb13-cloud-amd64
Version: 6.12.10-1
Depends: kmod, initramfs-tools (>= 0.120) | linux-initramfs-tool

Package: linux-image-6.12.11+deb13-amd64
Version: 6.12.11-1
Depends: kmod

Package: linux-image-6.12.11+deb13-rt-amd64
Version: 6.12.11-1
Depends: kmod

Package: linux-image-6.12-cloud-amd64
Version: 6.12.99-1
Depends: linux-image-6.12.10+deb13-cloud-amd64 (= 6.12.10-1)

Package: linux-image-6.1.0-47-cloud-amd64
Version: 6.1.170-1
Depends: kmod

Package: linux-image-7.0.13+deb13-cloud-amd64
Version: 7.0.13-1~bpo13+1
Depends: dracut | initramfs-tools, linux-binary-7.0.13+deb13-cloud-amd64 (= 7.0.13-1~bpo13+1), linux-modules-7.0.13+deb13-cloud-amd64 (= 7.0.13-1~bpo13+1)

Package: linux-binary-7.0.13+deb13-cloud-amd64
Version: 7.0.13-1~bpo13+1
Depends: linux-base-7.0.13+deb13-cloud-amd64 (= 7.0.13-1~bpo13+1)
";

    const MODULES: &str = "
Package: linux-modules-7.0.13+deb13-cloud-amd64
Version: 7.0.13-1~bpo13+1
Depends: kmod
";

    fn release(available: &str, series: Option<&str>, flavour: &str) -> Option<String> {
        newest(available, series, flavour).map(|choice| choice.release)
    }

    #[test]
    fn the_newest_is_found_by_its_version_and_not_by_its_name() {
        assert_eq!(
            release(AVAILABLE, Some("6.12"), "cloud-amd64").unwrap(),
            "6.12.10+deb13-cloud-amd64"
        );
    }

    #[test]
    fn a_series_is_no_other_that_begins_with_the_same_digits() {
        assert_eq!(release(AVAILABLE, Some("6.1"), "cloud-amd64").unwrap(), "6.1.0-47-cloud-amd64");
        assert_eq!(release(AVAILABLE, Some("6.11"), "cloud-amd64"), None);
    }

    #[test]
    fn a_flavour_is_no_other_that_ends_like_it() {
        assert_eq!(release(AVAILABLE, Some("6.12"), "amd64").unwrap(), "6.12.11+deb13-amd64");
        assert_eq!(release(AVAILABLE, None, "rt-amd64").unwrap(), "6.12.11+deb13-rt-amd64");
    }

    #[test]
    fn a_kernel_without_its_modules_is_passed_over() {
        assert_eq!(release(AVAILABLE, None, "cloud-amd64").unwrap(), "6.12.10+deb13-cloud-amd64");
        let whole = format!("{AVAILABLE}{MODULES}");
        let choice = newest(&whole, None, "cloud-amd64").unwrap();
        assert_eq!(choice.release, "7.0.13+deb13-cloud-amd64");
        assert_eq!(
            choice.packages,
            [
                "linux-binary-7.0.13+deb13-cloud-amd64=7.0.13-1~bpo13+1",
                "linux-modules-7.0.13+deb13-cloud-amd64=7.0.13-1~bpo13+1"
            ]
        );
    }
}
