//! How a group confines its processes, as it is written down for those that come after them.

use serde::{Deserialize, Serialize};

use super::{Cgroup, CgroupError, Hierarchy, Limits, Program};
use crate::host::os_text::OsText;

/// How a group confines its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confining {
    /// The group's directory.
    pub directory: OsText,
    /// Its number: another group can be called by the same name later.
    pub id: u64,
    /// What it and those above it allow, it first.
    pub limits: Vec<Limits>,
    /// The programs that are asked about its processes, in their order; `None` where the kernel did not say.
    pub programs: Option<Vec<Program>>,
}

impl Confining {
    /// How a group does it now.
    ///
    /// # Errors
    ///
    /// When it is gone, or cannot be read.
    pub fn of(group: &Cgroup, hierarchy: &Hierarchy) -> Result<Self, CgroupError> {
        let unknown = |error: &CgroupError| {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "nobody knows which BPF programs confine a server");
        };
        Ok(Self {
            directory: group.directory().into(),
            id: group.id()?,
            limits: group.limits(hierarchy)?,
            programs: group.programs().inspect_err(unknown).ok(),
        })
    }

    /// The group, if it is there, and no other one in its place.
    pub fn group(&self, hierarchy: &Hierarchy) -> Option<Cgroup> {
        let group = hierarchy.open(self.directory.as_ref()).ok()?;
        (group.id().ok()? == self.id).then_some(group)
    }
}
