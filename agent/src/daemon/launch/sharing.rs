//! Whether the next generation may bind the ports of those before it.

use agent_terms::ServiceId;

use crate::daemon::{agent::Agent, world_error::WorldError};

impl Agent {
    /// Has the kernel let the service's next listeners in, and tries whether it does.
    ///
    /// Joining a group makes the kernel remember its port as shared, but of several addresses of one port only the last:
    /// each of the others is refused as long as connections are open that were accepted before we came, by a server without
    /// `SO_REUSEADDR`. Groups come in the same order both times, so that none is tried while it is the remembered one,
    /// unless it is the only one.
    ///
    /// # Errors
    ///
    /// When listeners cannot be listed, or it cannot be tried.
    pub(in crate::daemon) fn can_share(&mut self, id: ServiceId) -> Result<bool, WorldError> {
        self.guard_queues(id);
        let mut groups = self.groups_of(id)?;
        groups.extend(self.held_groups(id));
        for group in groups {
            if !group.admits_another()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
