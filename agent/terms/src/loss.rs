//! What of a confinement nobody can give to another process.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Something that a successor would not be confined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Filters of system calls: a process can only be given them by itself.
    Seccomp,
    /// The label of a security module (`AppArmor`, `SELinux`), which follows from what is executed by whom.
    Label,
    /// Programs of its control group that cannot be attached to another one, or are gone.
    Bpf,
    /// Control groups that are gone, and what they allowed with them.
    Groups,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Seccomp, Self::Label, Self::Bpf, Self::Groups];
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seccomp => "seccomp",
            Self::Label => "label",
            Self::Bpf => "bpf",
            Self::Groups => "groups",
        })
    }
}

impl FromStr for Loss {
    type Err = LossError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|loss| loss.to_string() == text);
        named.ok_or_else(|| LossError { text: text.to_owned() })
    }
}

/// Nothing that a successor can be without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is none of `seccomp`, `label`, `bpf`, `groups`")]
pub struct LossError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name() {
        for loss in Loss::ALL {
            assert_eq!(loss.to_string().parse(), Ok(loss));
        }
        assert!("keyring".parse::<Loss>().is_err());
    }
}
