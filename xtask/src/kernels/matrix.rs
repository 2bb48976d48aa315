//! Which kernels are tried, how each machine is set up, and what is expected there.

use std::{fmt, str::FromStr};

use anyhow::{Error, Result, bail, ensure};

use crate::layout::Target;

/// Every kernel of the default run. By suite and series only: exact versions leave the archive within weeks.
const ALL: [&str; 11] = [
    "bullseye:5.10",
    "bookworm:6.1",
    "trixie:6.12",
    "trixie-backports",
    "sid",
    "trixie:6.12+rt",
    "trixie:6.12+lockdown",
    "trixie:6.12+no-ipv6",
    "trixie:6.12+cgroup-v1",
    "trixie:6.12+no-diag",
    "trixie:6.12+arm64",
];

/// The oldest kernel that is served, and the newest one there is.
const QUICK: [&str; 2] = ["bookworm:6.1", "trixie-backports,sid"];

/// What the agent lacks there, so that it has to say so and to leave everything as it was.
const REFUSED: [&str; 3] = ["bullseye:5.10", "trixie:6.12+cgroup-v1", "trixie:6.12+no-diag"];

/// All rows of a run without any named.
pub(super) fn all() -> Result<Vec<Row>> {
    ALL.iter().map(|words| words.parse()).collect()
}

/// The rows of a quick run.
pub(super) fn quick() -> Result<Vec<Row>> {
    QUICK.iter().map(|words| words.parse()).collect()
}

/// One kernel in one configuration: `SUITE[,SUITE…][:SERIES][+CONFIGURATION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// As it was typed.
    words: String,
    /// The newest kernel of all of them.
    pub(super) suites: Vec<String>,
    pub(super) series: Option<String>,
    pub(super) configuration: Configuration,
}

impl Row {
    pub(super) fn expected(&self) -> Expected {
        match REFUSED.contains(&self.words.as_str()) {
            true => Expected::Refused,
            false => Expected::Served,
        }
    }

    /// A name for its folder.
    pub(super) fn folder(&self) -> String {
        self.words.replace([':', '+', ','], "_")
    }
}

impl FromStr for Row {
    type Err = Error;

    fn from_str(words: &str) -> Result<Self> {
        let (kernel, configuration) = match words.split_once('+') {
            None => (words, Configuration::Plain),
            Some((kernel, name)) => (kernel, name.parse()?),
        };
        let (suites, series) = match kernel.split_once(':') {
            None => (kernel, None),
            Some((suites, series)) => (suites, Some(series)),
        };
        for part in suites.split(',').chain(series) {
            let is_plain = |it: char| it.is_ascii_alphanumeric() || it == '.' || it == '-';
            ensure!(
                part.starts_with(|it: char| it.is_ascii_alphanumeric())
                    && part.chars().all(is_plain),
                "`{words}` is no `SUITE[:SERIES][+CONFIGURATION]`, as in `trixie:6.12+rt`"
            );
        }
        Ok(Self {
            words: words.to_owned(),
            suites: suites.split(',').map(str::to_owned).collect(),
            series: series.map(str::to_owned),
            configuration,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.words)
    }
}

/// What has to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// The whole scenario, without a failure.
    Served,
    /// The agent says in a few words what is missing, and leaves nothing.
    Refused,
}

/// What is special about a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Configuration {
    /// Nothing.
    Plain,
    /// The kernel with PREEMPT_RT, in which nearly all of it can be interrupted.
    RealTime,
    /// Kernel memory cannot be read, not even by root.
    Lockdown,
    /// No IPv6 at all, which many switch off.
    NoIpv6,
    /// Control groups as they were until version 2.
    CgroupV1,
    /// Nobody lists TCP sockets: the module that does is not loaded.
    NoDiag,
    /// The other architecture.
    Arm64,
}

impl Configuration {
    /// What the machine is built for.
    pub(super) fn target(self) -> Target {
        match self {
            Self::Arm64 => Target::Aarch64,
            Self::Plain
            | Self::RealTime
            | Self::Lockdown
            | Self::NoIpv6
            | Self::CgroupV1
            | Self::NoDiag => Target::X86_64,
        }
    }

    /// What Debian calls that.
    pub(super) fn architecture(self) -> &'static str {
        match self.target() {
            Target::X86_64 => "amd64",
            Target::Aarch64 => "arm64",
        }
    }

    /// The flavours that will do, the best one first. Those for clouds are small, and have all that is needed.
    pub(super) fn flavours(self) -> &'static [&'static str] {
        match self {
            Self::RealTime => &["rt-amd64"],
            Self::Arm64 => &["cloud-arm64", "arm64"],
            Self::Plain | Self::Lockdown | Self::NoIpv6 | Self::CgroupV1 | Self::NoDiag => {
                &["cloud-amd64", "amd64"]
            }
        }
    }

    /// What is added to the kernel's command line. Words with a dot are left to the guest.
    pub(super) fn boot_words(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::RealTime | Self::Arm64 => &[],
            Self::Lockdown => &["lockdown=confidentiality"],
            Self::NoIpv6 => &["ipv6.disable=1"],
            Self::CgroupV1 => &["guest.cgroup=v1"],
            Self::NoDiag => &["guest.modules=none"],
        }
    }
}

impl FromStr for Configuration {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "rt" => Self::RealTime,
            "lockdown" => Self::Lockdown,
            "no-ipv6" => Self::NoIpv6,
            "cgroup-v1" => Self::CgroupV1,
            "no-diag" => Self::NoDiag,
            "arm64" => Self::Arm64,
            other => bail!(
                "there is no configuration `{other}`: take `rt`, `lockdown`, `no-ipv6`, `cgroup-v1`, `no-diag` or `arm64`"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Configuration, Expected, REFUSED, Row, all, quick};

    #[test]
    fn every_row_of_ours_can_be_read() {
        assert_eq!(all().unwrap().len(), ALL.len());
        let quick = quick().unwrap();
        assert_eq!(quick[1].suites, ["trixie-backports", "sid"]);
        assert_eq!(quick[1].series, None);
        assert!(REFUSED.iter().all(|words| ALL.contains(words)));
    }

    #[test]
    fn a_row_has_a_series_and_a_configuration() {
        let row: Row = "trixie:6.12+rt".parse().unwrap();
        assert_eq!(row.suites, ["trixie"]);
        assert_eq!(row.series.as_deref(), Some("6.12"));
        assert_eq!(row.configuration, Configuration::RealTime);
        assert_eq!(row.expected(), Expected::Served);
        assert_eq!(row.folder(), "trixie_6.12_rt");
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for words in ["", "trixie:", ":6.12", "../sid", "trixie:6.12+fast", "trixie+"] {
            assert!(words.parse::<Row>().is_err(), "{words}");
        }
    }
}
