//! A server that chooses among its listeners by a program of its own (`SO_ATTACH_REUSEPORT_CBPF`, `_EBPF`).
//!
//! A group of listeners has one program. Ours (`migrate`) would take the place of the server's, and nobody could give that
//! back; and steering chooses a listener before the group is asked.

use std::collections::{BTreeSet, HashSet};

use agent_api::EventKind;
use agent_terms::ServiceId;

use super::error::IdentifyError;
use crate::{
    daemon::{agent::Agent, effects::queued::group_of, world_error::WorldError},
    datapath::{Group, WithProgram},
    host::sock_diag::{self, Listener},
};

/// Why neither a server nor a candidate can be steered to.
pub(in crate::daemon) const OWN_PROGRAM: &str = "the server chooses among its listeners by a program of its own (SO_ATTACH_REUSEPORT_CBPF or _EBPF), which steering would replace";

impl Agent {
    /// Refuses a server that has given its listeners a program.
    ///
    /// # Errors
    ///
    /// When it has, or the sockets cannot be walked.
    pub(in crate::daemon) fn refuse_own_program(
        &mut self,
        listeners: &[Listener],
    ) -> Result<(), IdentifyError> {
        let cookies: Vec<u64> = listeners.iter().map(|it| it.cookie.0).collect();
        if self.datapath.with_program(&cookies)?.own.is_empty() {
            return Ok(());
        }
        Err(IdentifyError::OwnProgram)
    }

    /// Refuses an upgrade of a server that has done so since it was attached: the next generation would join its group. What
    /// cannot be found out now is when that one listens: then it is not taken.
    ///
    /// # Errors
    ///
    /// When it has.
    pub(in crate::daemon) fn refuse_late_program(
        &mut self,
        id: ServiceId,
    ) -> Result<(), IdentifyError> {
        match self.groups_with_own_program(id) {
            Ok(groups) if groups.is_empty() => return Ok(()),
            Ok(_) => {}
            Err(problem) => {
                tracing::warn!(
                    problem = problem.in_full(),
                    "cannot tell whether the server has a program of its own"
                );
                return Ok(());
            }
        }
        Err(IdentifyError::LateProgram)
    }

    /// Those groups of a service in which `migrate` may be: not where the server has a program now. People are told of that
    /// once.
    ///
    /// # Errors
    ///
    /// When the listeners cannot be listed, or the sockets not be walked.
    pub(in crate::daemon) fn groups_without_program(
        &mut self,
        id: ServiceId,
    ) -> Result<BTreeSet<Group>, WorldError> {
        let own = self.groups_with_own_program(id)?;
        if !own.is_empty() && self.moves_of(id)?.note_own_program() {
            let name = self.record(id).service.name().clone();
            let message = format!(
                "{OWN_PROGRAM}: it was given after the attach, is left where it is, and counts for nothing until the detach"
            );
            self.journal.note(&name, None, EventKind::Warning, message);
        }
        Ok(&self.groups_of(id)? - &own)
    }

    fn groups_with_own_program(&mut self, id: ServiceId) -> Result<BTreeSet<Group>, WorldError> {
        self.groups_with_program(id, |it| it.own)
    }

    /// Those groups of a service that an agent has given `migrate`.
    ///
    /// # Errors
    ///
    /// As [`Self::groups_without_program`].
    pub(in crate::daemon) fn guarded_groups(
        &mut self,
        id: ServiceId,
    ) -> Result<BTreeSet<Group>, WorldError> {
        self.groups_with_program(id, |it| it.ours)
    }

    fn groups_with_program(
        &mut self,
        id: ServiceId,
        whose: impl FnOnce(WithProgram) -> Vec<u64>,
    ) -> Result<BTreeSet<Group>, WorldError> {
        let groups = self.groups_of(id)?;
        let mut listeners = sock_diag::tagged_listeners(self.datapath.tags())?;
        listeners.retain(|it| groups.contains(&group_of(it)));
        let cookies: Vec<u64> = listeners.iter().map(|it| it.cookie.0).collect();
        let with: HashSet<u64> = whose(self.datapath.with_program(&cookies)?).into_iter().collect();
        let with = listeners.iter().filter(|it| with.contains(&it.cookie.0));
        Ok(with.map(group_of).collect())
    }
}
