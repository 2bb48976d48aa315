//! Limits of what a process may use (`getrlimit(2)`).

use std::{num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

/// How much of something a process may use; no number means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the process may raise it by itself.
    pub hard: Option<u64>,
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
}
