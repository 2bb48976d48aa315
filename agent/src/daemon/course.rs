//! Whether the agent goes on, and how it ends.

use agent_api::{Attached, Detached, Problem, ProblemKind};

use super::{agent::Agent, control::message::Reply, requests::answer::send};

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

impl Agent {
    /// Answers whoever waits for the end.
    pub(super) fn end(mut self) -> Result<(), Problem> {
        let takes_log_along = self.course.ends_with_last();
        match self.course.take_end() {
            Some(End::GivesWay(why)) => Err(why),
            Some(End::Bereft) => self.leave(false).and(Err(launcher_gone())),
            Some(End::Forsaken) => {
                tracing::info!("nobody is there any more who wanted to attach something");
                self.leave(takes_log_along)
            }
            // Who was refused takes back the log that it made, and nothing else.
            Some(End::InVain(reply, refusal)) => {
                let left = self.leave(false);
                send(reply, Err(refusal));
                left
            }
            Some(End::WithLast(reply, answer)) => {
                let left = self.leave(takes_log_along);
                send(reply, left.clone().map(|()| answer));
                left
            }
            None => self.leave(takes_log_along),
        }
    }

    /// Leaves steering as it is, or, with nothing to steer, no trace.
    fn leave(self, takes_log_along: bool) -> Result<(), Problem> {
        if let Err(error) = self.launcher.end() {
            tracing::warn!(%error, "cannot wait for the end of the launcher");
        }
        if !self.records.is_empty() {
            tracing::info!(services = self.records.len(), "ending; steering goes on in the kernel");
            return Ok(());
        }
        tracing::info!("ending; nothing is attached, so nothing stays behind");
        Ok(self.leave_no_trace(takes_log_along)?)
    }
}

fn launcher_gone() -> Problem {
    let message = "the process that starts servers for the agent (agent-launcher) is gone";
    Problem::new(ProblemKind::Failed, message).fix("start the agent again: it goes on where it was")
}
