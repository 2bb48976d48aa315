//! What the machine is told, on its kernel's command line.

use std::fs;

use anyhow::{Context as _, Result};

/// The words for the guest: `guest.NAME=VALUE`. The kernel keeps its hands off what has a dot in it.
#[derive(Clone, Debug)]
pub(super) struct Words(String);

impl Words {
    /// As the kernel was started.
    pub(super) fn read() -> Result<Self> {
        Ok(Self(fs::read_to_string("/proc/cmdline").context("read the kernel's command line")?))
    }

    /// Whether the agent has to refuse this machine.
    pub(super) fn is_refusal_expected(&self) -> bool {
        self.value("expected") == Some("refused")
    }

    /// Whether there are only control groups version 1.
    pub(super) fn is_cgroup_v1(&self) -> bool {
        self.value("cgroup") == Some("v1")
    }

    /// Whether the parts of the kernel that come as files stay where they are.
    pub(super) fn is_without_modules(&self) -> bool {
        self.value("modules") == Some("none")
    }

    /// The serial port to tell everything on.
    pub(super) fn output(&self) -> Option<&str> {
        self.value("output")
    }

    fn value(&self, name: &str) -> Option<&str> {
        let ours = self.0.split_whitespace().filter_map(|word| word.strip_prefix("guest."));
        let mut pairs = ours.filter_map(|word| word.split_once('='));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_for_the_guest_are_taken() {
        let words = Words("expected=refused guest.output=ttyS1 guest.cgroup=v1 panic=-1\n".into());
        assert!(!words.is_refusal_expected());
        assert!(words.is_cgroup_v1());
        assert_eq!(words.output(), Some("ttyS1"));
    }
}
