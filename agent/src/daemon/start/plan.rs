//! What to do about what an earlier agent left: decided from what is there, before anything is touched.

use agent_api::{Problem, ProblemKind};

use crate::{daemon::state::state_file::StateFile, datapath::Pinned, places::Places};

/// How to come to maps and programs that do what the state says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Go on with what is pinned.
    Adopt,
    /// Make new ones, fill them from the state, and have them take the place of what is left of the old ones.
    Build {
        /// What was wrong with the old ones, if there should have been any.
        lost: Option<String>,
    },
}

/// Decides. `steers` says whether what is pinned has endpoints, if that can be read.
///
/// # Errors
///
/// When something steers that the state knows nothing of: whatever was done, somebody's connections would go astray.
pub(super) fn plan(
    places: &Places,
    state: Option<&StateFile>,
    pinned: &Pinned,
    steers: Option<bool>,
) -> Result<Plan, Problem> {
    let knows_services = state.is_some_and(|state| !state.services.is_empty());
    match (pinned, knows_services) {
        (Pinned::Nothing, false) => Ok(Plan::Build { lost: None }),
        (Pinned::Nothing, true) => {
            Ok(Plan::Build { lost: Some(format!("`{}` was gone", places.pin_dir.display())) })
        }
        (Pinned::Broken(what), true) => Ok(Plan::Build { lost: Some(what.clone()) }),
        (Pinned::Whole, true) => Ok(Plan::Adopt),
        (Pinned::Whole, false) if steers != Some(true) => Ok(Plan::Adopt),
        // Of an agent that was killed when it started, for one.
        (Pinned::Broken(_), false) if steers == Some(false) => Ok(Plan::Build { lost: None }),
        // An agent without services leaves such a state, and steers nothing.
        (Pinned::Broken(_), false) if state.is_some() && steers.is_none() => {
            Ok(Plan::Build { lost: None })
        }
        (Pinned::Broken(what), false) if steers.is_none() => Err(nobody_can_tell(places, what)),
        (Pinned::Whole | Pinned::Broken(_), false) => Err(nobody_knows(places)),
    }
}

fn nobody_knows(places: &Places) -> Problem {
    let message = format!(
        "`{}` steers services, but `{}` is gone",
        places.pin_dir.display(),
        places.state_file().display()
    );
    Problem::new(ProblemKind::Preflight, message).fix(
        "steering goes on; `agent doctor --repair` writes the state anew from what runs, and starts the agent",
    )
}

/// Those who are to mend it find out whether somebody needs it.
fn nobody_can_tell(places: &Places, what: &str) -> Problem {
    let message = format!(
        "`{}` is not usable ({what}), and `{}` is gone",
        places.pin_dir.display(),
        places.state_file().display()
    );
    Problem::new(ProblemKind::Preflight, message).fix(
        "`agent doctor --repair` derives the state from what runs, or removes what nobody needs",
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn decide(
        state: Option<&StateFile>,
        pinned: &Pinned,
        steers: impl Into<Option<bool>>,
    ) -> Option<Plan> {
        plan(&places(), state, pinned, steers.into()).ok()
    }

    fn places() -> Places {
        Places {
            runtime_dir: PathBuf::from("/run/agent"),
            pin_dir: PathBuf::from("/sys/fs/bpf/agent"),
            cgroup: None,
        }
    }

    #[test]
    fn what_steers_is_never_thrown_away_by_one_who_does_not_know_it() {
        let (empty, broken) = (StateFile::default(), Pinned::Broken("older".to_owned()));
        for state in [None, Some(&empty)] {
            for pinned in [&Pinned::Whole, &broken] {
                assert_eq!(decide(state, pinned, true), None);
            }
        }
        assert_eq!(decide(None, &broken, None), None);
        let problem = plan(&places(), None, &broken, None).unwrap_err();
        assert!(problem.message.contains("older"), "{problem:?}");
        assert_eq!(decide(None, &broken, false), Some(Plan::Build { lost: None }));
        assert_eq!(decide(None, &Pinned::Whole, None), Some(Plan::Adopt));
        assert_eq!(decide(None, &Pinned::Whole, false), Some(Plan::Adopt));
        assert_eq!(decide(None, &Pinned::Nothing, false), Some(Plan::Build { lost: None }));
        for steers in [Some(false), None] {
            assert_eq!(decide(Some(&empty), &broken, steers), Some(Plan::Build { lost: None }));
        }
    }
}
