//! The control group that the agent's own are below, as far as it can be judged before anything is made.

use std::io;

use agent_api::{Problem, ProblemKind};

use crate::{
    daemon::{launch::groups::Groups, problems::is_exhausted},
    host::cgroup::{CgroupError, Hierarchy},
    places::Places,
};

/// What keeps the agent's control groups from being there. Nothing is made.
///
/// # Errors
///
/// When it is no place for a control group, or has no possible name.
pub fn examine_group(places: &Places) -> Result<(), Problem> {
    // Where there is no hierarchy, that is told when groups are made.
    let Ok(hierarchy) = Hierarchy::find() else { return Ok(()) };
    let group = Groups::above_in(places, &hierarchy).map_err(|error| without_group(&error))?;
    match group.id() {
        Err(CgroupError::Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        Err(error) => Err(without_group(&error)),
        Ok(_) => Ok(()),
    }
}

/// An agent has nowhere to launch servers, or one of them.
pub(in crate::daemon) fn without_group(error: &CgroupError) -> Problem {
    let kind = match error {
        CgroupError::Elsewhere { .. } | CgroupError::Outside { .. } => ProblemKind::Usage,
        CgroupError::Failed { source, .. } if is_exhausted(source) => ProblemKind::Failed,
        CgroupError::NotMounted
        | CgroupError::Unseen { .. }
        | CgroupError::Threaded { .. }
        | CgroupError::MountTable(_)
        | CgroupError::Failed { .. }
        | CgroupError::Signal { .. }
        | CgroupError::NeverEmpty { .. } => ProblemKind::Preflight,
    };
    let problem = Problem::caused(kind, error);
    Problem { fix: error.fix().or(problem.fix), ..problem }
}
