//! What of a confinement nobody can give to another process.

use agent_terms::Loss;

use super::Confinement;
use crate::host::process::{Pid, ProcessError, text_of};

/// What a successor of `theirs` that `ours` starts would be without.
pub fn losses(theirs: &Confinement, ours: &Confinement) -> Vec<Loss> {
    let lost = |loss: &Loss| match loss {
        // Those that we have ourselves go with everything that we start.
        Loss::Seccomp => theirs.filters > ours.filters,
        Loss::Label => theirs.label != ours.label,
        // The groups themselves are to be looked at.
        Loss::Bpf | Loss::Groups => false,
    };
    Loss::ALL.into_iter().filter(lost).collect()
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
        assert_eq!(losses(&ours, &ours), []);
        let filtered = Confinement { filters: ours.filters + 1, ..ours.clone() };
        assert_eq!(losses(&filtered, &ours), [Loss::Seccomp]);
        assert_eq!(losses(&ours, &filtered), []);
        let labelled = Confinement { label: Some("web (enforce)".to_owned()), ..ours.clone() };
        assert_eq!(losses(&labelled, &ours), [Loss::Label]);
    }
}
