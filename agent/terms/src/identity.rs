//! How services and generations are named.

use std::{fmt, str::FromStr};

use agent_ebpf::flow::GenerationKey;
use serde::{Deserialize, Serialize};

/// The number by which the kernel maps know a service. Starts at 1; reused after `detach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(pub u32);

/// Counts the incarnations of a service's server: 1, 2, 3…
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct GenerationNumber(pub u32);

impl GenerationNumber {
    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for GenerationNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One generation of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId {
    /// The service.
    pub service: ServiceId,
    /// The generation within it.
    pub number: GenerationNumber,
}

impl GenerationId {
    /// The same, as the kernel maps have it.
    pub const fn key(self) -> GenerationKey {
        GenerationKey { service: self.service.0, generation: self.number.0 }
    }
}

/// What people call a service: letters, digits, `-`, `_` and `.`, at most 64, not only digits (those are ports).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

/// Why a text is no service name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ServiceNameError {
    /// Nothing, or more than 64 bytes.
    #[error("a service name has 1 to 64 characters, got {0}")]
    Length(usize),
    /// A character that would be trouble in a path or a shell.
    #[error("`{0}` is not allowed in a service name (letters, digits, `-`, `_`, `.`)")]
    Character(char),
    /// Would be taken for a port.
    #[error("a service name needs at least one letter: a number selects by port")]
    OnlyDigits,
    /// Would be a directory of its own kind, or hidden.
    #[error("a service name does not start with `.` or `-`")]
    Start,
}

impl ServiceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > 64 {
            return Err(ServiceNameError::Length(text.len()));
        }
        if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c)))
        {
            return Err(ServiceNameError::Character(bad));
        }
        if text.starts_with(['.', '-']) {
            return Err(ServiceNameError::Start);
        }
        if text.chars().all(|c| c.is_ascii_digit()) {
            return Err(ServiceNameError::OnlyDigits);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ServiceName {
    type Error = ServiceNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_or_ports_are_refused() {
        assert_eq!("8080".parse::<ServiceName>(), Err(ServiceNameError::OnlyDigits));
        assert_eq!("a/b".parse::<ServiceName>(), Err(ServiceNameError::Character('/')));
        assert_eq!("..".parse::<ServiceName>(), Err(ServiceNameError::Start));
        assert_eq!("".parse::<ServiceName>(), Err(ServiceNameError::Length(0)));
        assert_eq!("web-8080".parse::<ServiceName>().unwrap().as_str(), "web-8080");
    }
}
