//! What of a confinement nobody can give to another process.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Confinement;
use crate::host::process::{Pid, ProcessError, text_of};

/// Something that a successor would not be confined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Filters of system calls: a process can only be given them by itself.
    Seccomp,
    /// The label of a security module (`AppArmor`, `SELinux`), which follows from what is executed by whom.
    Label,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Seccomp, Self::Label];

    /// What a successor of `theirs` that `ours` starts would be without.
    pub fn of(theirs: &Confinement, ours: &Confinement) -> Vec<Self> {
        let lost = |loss: &Self| match loss {
            // Those that we have ourselves go with everything that we start.
            Self::Seccomp => theirs.filters > ours.filters,
            Self::Label => theirs.label != ours.label,
        };
        Self::ALL.into_iter().filter(lost).collect()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seccomp => "seccomp",
            Self::Label => "label",
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
#[error("`{text}` is neither `seccomp` nor `label`")]
pub struct LossError {
    text: String,
}

/// Strict mode counts like one.
pub(super) fn filters(pid: Pid, mode: Option<u32>) -> Result<u32, ProcessError> {
    let counted = counted_filters(&text_of(pid, "status", "the status")?);
    // Before Linux 5.9 only the mode shows.
    Ok(counted.unwrap_or(0).max(u32::from(mode.unwrap_or(0) != 0)))
}

pub(in crate::host) fn counted_filters(status: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(status);
    let counted = text.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"))?;
    counted.trim().parse().ok()
}

/// Nothing where no security module gives labels (`EINVAL`).
pub(super) fn label(pid: Pid) -> Option<String> {
    let label = text_of(pid, "attr/current", "the label").ok()?;
    Some(String::from_utf8_lossy(&label).trim_end_matches(['\0', '\n']).to_owned())
        .filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_have_ourselves_is_not_lost() {
        let ours = Confinement::of(Pid::ours()).unwrap();
        assert_eq!(Loss::of(&ours, &ours), []);
        let filtered = Confinement { filters: ours.filters + 1, ..ours.clone() };
        assert_eq!(Loss::of(&filtered, &ours), [Loss::Seccomp]);
        assert_eq!(Loss::of(&ours, &filtered), []);
        let labelled = Confinement { label: Some("web (enforce)".to_owned()), ..ours.clone() };
        assert_eq!(Loss::of(&labelled, &ours), [Loss::Label]);
    }

    #[test]
    fn each_has_a_name() {
        for loss in Loss::ALL {
            assert_eq!(loss.to_string().parse(), Ok(loss));
        }
        assert!("keyring".parse::<Loss>().is_err());
    }
}
