//! Whether the agent goes on, and how it ends.

use agent_api::{Attached, Detached, Problem};

use super::control::message::Reply;

/// How an agent ends, unless it is told to stop.
pub(super) enum End {
    /// With the last service. The answer is given when nothing is left, so that an `attach` right after it meets no agent that is about
    /// to end.
    WithLast(Reply<Detached>, Detached),
    /// It was started for an attach that was refused. The answer is given as late.
    InVain(Reply<Attached>, Problem),
    /// It leaves everything as it is: another agent has come, because the lock was removed.
    GivesWay(Problem),
    /// Who starts servers for it is gone. What steers stays for the agent that comes next.
    Bereft,
    /// Who started it for an attach is gone, and has not attached anything.
    Forsaken,
}

/// The way of one agent.
pub(super) struct Course {
    ends_with_last: bool,
    end: Option<End>,
}

impl Course {
    /// One that goes on, until the last service is detached if it `ends_with_last`.
    pub(super) const fn new(ends_with_last: bool) -> Self {
        Self { ends_with_last, end: None }
    }

    pub(super) const fn ends_with_last(&self) -> bool {
        self.ends_with_last
    }

    /// Ends after what is being done. Giving way goes before all else.
    pub(super) fn end_with(&mut self, end: End) {
        if !matches!(self.end, Some(End::GivesWay(_))) {
            self.end = Some(end);
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        self.end.is_some()
    }

    pub(super) const fn take_end(&mut self) -> Option<End> {
        self.end.take()
    }
}
