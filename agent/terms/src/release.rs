//! What a deploy calls the version that it brings.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What people call a version: an opaque text, compared as it is. 1 to 128 bytes, nothing that a terminal would act on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Release(String);

/// Why a text names no release.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReleaseError {
    /// Nothing, or more than 128 bytes.
    #[error("a release has 1 to {MOST} bytes, got {0}")]
    Length(usize),
    /// A character that would not be shown as it is.
    #[error("a release has no control characters, got {0:?}")]
    Character(char),
}

const MOST: usize = 128;

impl FromStr for Release {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > MOST {
            return Err(ReleaseError::Length(text.len()));
        }
        match text.chars().find(|it| it.is_control()) {
            Some(bad) => Err(ReleaseError::Character(bad)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Release {
    type Error = ReleaseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Release> for String {
    fn from(release: Release) -> Self {
        release.0
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_short_and_can_be_shown() {
        assert_eq!("".parse::<Release>(), Err(ReleaseError::Length(0)));
        assert_eq!("x".repeat(129).parse::<Release>(), Err(ReleaseError::Length(129)));
        assert_eq!("a\u{1b}[2J".parse::<Release>(), Err(ReleaseError::Character('\u{1b}')));
        assert_eq!(
            "build 7 (\u{3b2})".parse::<Release>().unwrap().to_string(),
            "build 7 (\u{3b2})"
        );
    }
}
