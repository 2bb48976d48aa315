//! Whether the agent goes on, and how it ends.

use std::{
    io,
    time::{Duration, Instant},
};

use agent_api::{Attached, Detached, Problem};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
    Bereft(Problem),
    /// Who started it for an attach is gone, and has not attached anything.
    Forsaken,
}

/// The way of one agent.
pub(super) struct Course {
    ends_with_last: bool,
    /// When to look whether who started it for an attach is still there.
    next_look: Option<Instant>,
    end: Option<End>,
}

/// How long an agent without a service may stay when its asker is gone.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

impl Course {
    /// One that goes on, until the last service is detached if it `ends_with_last`.
    pub(super) const fn new(ends_with_last: bool) -> Self {
        Self { ends_with_last, next_look: None, end: None }
    }

    /// The same, of one that is there for an attach: it ends if who reads its standard output goes before anything is attached.
    pub(super) fn for_attach(self) -> Self {
        Self { next_look: Some(Instant::now() + BETWEEN_LOOKS), ..self }
    }

    /// When to look whether anybody is there, as long as nothing is attached.
    pub(super) const fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks, with nothing attached.
    pub(super) fn look_where_due(&mut self) {
        let now = Instant::now();
        if self.next_look.is_none_or(|look| now < look) {
            return;
        }
        self.next_look = Some(now + BETWEEN_LOOKS);
        if is_forsaken() {
            self.end_with(End::Forsaken);
        }
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

/// Whether nobody can read what we say any more. Who cannot be asked for is there.
fn is_forsaken() -> bool {
    let out = io::stdout();
    let mut pipe = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec::default();
    poll(&mut pipe, Some(&now)).is_ok_and(|_| pipe[0].revents().contains(PollFlags::ERR))
}
