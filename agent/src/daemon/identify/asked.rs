//! Why a server is looked for, which tells who is surely not a part of it.

use agent_rollout::Timestamp;

use crate::{
    daemon::state::clock,
    host::{
        kin,
        process::{Pid, Process, ProcessError},
    },
};

/// Why a server is looked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) enum Asked {
    /// Somebody named it: the process that did, as far as the kernel tells.
    By(Option<Pid>),
    /// Nobody did; it is to take the place of a generation that was there from this moment on.
    ByNobody(Timestamp),
}

impl Asked {
    /// Whether this process may be a master: neither we nor anybody above us is, nor is a deploy script above the one that
    /// asks, nor somebody who was there all the time and was no master of the generation before.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub(in crate::daemon) fn may_be_master(self, pid: Pid) -> Result<bool, ProcessError> {
        let is_above =
            |of: Pid| Ok::<_, ProcessError>(pid == of || kin::ancestors(of)?.contains(&pid));
        Ok(!is_above(Pid::ours())?
            && match self {
                Self::By(None) => true,
                Self::By(Some(asker)) => !is_above(asker)?,
                Self::ByNobody(since) => clock::now().before(Process::open(pid)?.age()?) > since,
            })
    }
}
