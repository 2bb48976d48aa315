//! Limits of what a process may use (`getrlimit(2)`).

use std::{num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

/// How much of something a process may use; no number means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the process may raise it by itself.
    pub hard: Option<u64>,
}

impl Limit {
    /// A line of `/proc/PID/limits`; nothing for the heading and for resources of later kernels.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (resource, rest) = Resource::ALL
            .iter()
            .find_map(|resource| Some((*resource, line.strip_prefix(resource.title())?)))?;
        let mut values = rest.split_ascii_whitespace().map(|value| match value {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        });
        Some(Self { resource, soft: values.next()??, hard: values.next()?? })
    }
}

/// As people write it: `nofile=SOFT` or `nofile=SOFT:HARD`, each a number or `unlimited`.
impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || LimitError { text: text.to_owned() };
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let named = |resource: &Resource| format!("{resource:?}").eq_ignore_ascii_case(name);
        let resource = Resource::ALL.into_iter().find(named).ok_or_else(wrong)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let value = |text: &str| match text {
            "unlimited" => Ok(None),
            number => number.parse().map(Some).map_err(|_no_number: ParseIntError| wrong()),
        };
        let limit = Self { resource, soft: value(soft)?, hard: value(hard)? };
        let within = limit.hard.is_none_or(|hard| limit.soft.is_some_and(|soft| soft <= hard));
        within.then_some(limit).ok_or_else(wrong)
    }
}

/// Not a limit as people write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no limit: write RESOURCE=SOFT[:HARD], as in `nofile=4096:8192` or `core=unlimited`, SOFT at most HARD"
)]
pub struct LimitError {
    text: String,
}

/// What a limit is about; named as in `RLIMIT_NOFILE` and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of getrlimit(2)")]
pub enum Resource {
    Cpu,
    Fsize,
    Data,
    Stack,
    Core,
    Rss,
    Nproc,
    Nofile,
    Memlock,
    As,
    Locks,
    Sigpending,
    Msgqueue,
    Nice,
    Rtprio,
    Rttime,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Cpu,
        Self::Fsize,
        Self::Data,
        Self::Stack,
        Self::Core,
        Self::Rss,
        Self::Nproc,
        Self::Nofile,
        Self::Memlock,
        Self::As,
        Self::Locks,
        Self::Sigpending,
        Self::Msgqueue,
        Self::Nice,
        Self::Rtprio,
        Self::Rttime,
    ];

    /// How `/proc/PID/limits` names it (`fs/proc/base.c`).
    fn title(self) -> &'static str {
        match self {
            Self::Cpu => "Max cpu time",
            Self::Fsize => "Max file size",
            Self::Data => "Max data size",
            Self::Stack => "Max stack size",
            Self::Core => "Max core file size",
            Self::Rss => "Max resident set",
            Self::Nproc => "Max processes",
            Self::Nofile => "Max open files",
            Self::Memlock => "Max locked memory",
            Self::As => "Max address space",
            Self::Locks => "Max file locks",
            Self::Sigpending => "Max pending signals",
            Self::Msgqueue => "Max msgqueue size",
            Self::Nice => "Max nice priority",
            Self::Rtprio => "Max realtime priority",
            Self::Rttime => "Max realtime timeout",
        }
    }

    /// The number that `setrlimit` takes.
    pub(super) fn to_rustix(self) -> rustix::process::Resource {
        use rustix::process::Resource as Kernel;
        match self {
            Self::Cpu => Kernel::Cpu,
            Self::Fsize => Kernel::Fsize,
            Self::Data => Kernel::Data,
            Self::Stack => Kernel::Stack,
            Self::Core => Kernel::Core,
            Self::Rss => Kernel::Rss,
            Self::Nproc => Kernel::Nproc,
            Self::Nofile => Kernel::Nofile,
            Self::Memlock => Kernel::Memlock,
            Self::As => Kernel::As,
            Self::Locks => Kernel::Locks,
            Self::Sigpending => Kernel::Sigpending,
            Self::Msgqueue => Kernel::Msgqueue,
            Self::Nice => Kernel::Nice,
            Self::Rtprio => Kernel::Rtprio,
            Self::Rttime => Kernel::Rttime,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let line = "Max open files            1024                 unlimited            files     ";
        let limit = Limit { resource: Resource::Nofile, soft: Some(1024), hard: None };
        assert_eq!(Limit::parse(line), Some(limit));
        for line in
            ["Limit                     Soft Limit", "Max open files", "Max open files  many 4", ""]
        {
            assert_eq!(Limit::parse(line), None, "{line}");
        }
    }
}
