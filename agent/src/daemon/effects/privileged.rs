//! Processes of a generation that its user may not end.
//!
//! By a program that makes it so (set-user-ID, as sudo is) a child of a user's server can become root, and whatever root does in there
//! is not the service's to end.

use std::collections::HashSet;

use agent_api::EventKind;
use agent_rollout::{Event, Origin};
use agent_terms::GenerationId;

use crate::{
    daemon::{
        agent::Agent,
        identify::found,
        step::{Step, take},
        world_error::WorldError,
    },
    host::{
        holders,
        process::{Pid, Process},
        process_table::ProcessTable,
    },
};

impl Agent {
    /// Those of a generation's processes that its user may end too. People are told of the others, once; where nobody else is left, and none
    /// of them has a listener of the service open, they belong to it no longer.
    ///
    /// # Errors
    ///
    /// When they cannot be looked at, or not be let go.
    ///
    /// # Kernel
    ///
    /// A signal is allowed by the real user of the one who gets it (`kill_ok_by_cred`).
    pub(super) fn without_privileged(
        &mut self,
        generation: GenerationId,
        pids: Vec<Pid>,
    ) -> Result<Vec<Pid>, WorldError> {
        const ROOT: u32 = 0;
        if self.is_of_root(generation) {
            return Ok(pids);
        }
        let table = ProcessTable::read_these(&pids)?;
        let is_roots = |pid: &Pid| table.row(*pid).is_some_and(|row| row.real_user == ROOT);
        let (privileged, own): (Vec<_>, Vec<_>) = pids.into_iter().partition(is_roots);
        if own.is_empty()
            && !privileged.is_empty()
            && !self.hold_listeners(generation, &privileged)?
        {
            self.let_go(generation, &privileged)?;
            return Ok(own);
        }
        for pid in privileged {
            let Ok(process) = Process::open(pid) else { continue };
            if self.memories.of_mut(generation).told.insert(process.identity()) {
                let message = format!(
                    "process {} of generation {} has become root, which its server may not end: it is left alone",
                    found::describe(pid),
                    generation.number
                );
                self.note(generation, EventKind::Warning, message);
            }
        }
        Ok(own)
    }

    fn hold_listeners(&self, generation: GenerationId, pids: &[Pid]) -> Result<bool, WorldError> {
        let listeners = self.listeners_of(generation.service)?;
        let inodes: HashSet<_> = listeners.iter().map(|it| it.inode).collect();
        Ok(!holders::holders_among(pids.iter().copied(), &inodes)?.found.is_empty())
    }

    fn let_go(&mut self, generation: GenerationId, pids: &[Pid]) -> Result<(), WorldError> {
        for pid in pids {
            let message = format!(
                "process {} has become root, which its server may not end: it is left alone, and belongs to generation {} no longer",
                found::describe(*pid),
                generation.number
            );
            self.note(generation, EventKind::Warning, message);
        }
        take(Step::FollowProcesses, || Ok(self.datapath.dismiss(pids.iter().copied())?))?;
        if let Some(cgroup) = self.cgroup_of(generation)? {
            let origin = self.record(generation.service).origin_cgroup.clone();
            self.move_home(generation, &cgroup, origin.as_ref())?;
        }
        match self.generation(generation).map(|it| it.origin()) {
            Some(Origin::Found) => {
                let nobody = Event::ProcessesChanged(generation.number, Vec::new());
                self.feed(generation.service, nobody)
            }
            Some(Origin::Launched { .. }) | None => Ok(()),
        }
    }
}
