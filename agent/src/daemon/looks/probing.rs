//! A candidate that is asked to accept, as far as that has come.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::host::{
    probe::{Look, Probe},
    sock_diag::SockDiagError,
};

/// A candidate that is asked, or was.
#[derive(Debug)]
pub(in crate::daemon) struct Probing {
    probe: Probe,
    /// The listeners that it had when it was asked.
    listeners: BTreeSet<u64>,
    stage: Stage,
    begun: Instant,
    wait: Duration,
    next_look: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked,
    /// It has accepted, and may end the connections in its own way for a while.
    Accepted,
}

/// Between two looks at a server that may have accepted without a word, which wakes nobody: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(1);
pub(super) const LAST_LOOK: Duration = Duration::from_millis(50);
/// How long a server may take to close a connection whose client has nothing to say. Then it is reset.
const CLOSING: Duration = Duration::from_secs(1);
/// When a handshake with ourselves is given up: something on this host keeps it from us.
const UNANSWERED: Duration = Duration::from_secs(3);

impl Probing {
    /// One that is connecting now.
    pub(super) fn begin(probe: Probe, listeners: BTreeSet<u64>) -> Self {
        let now = Instant::now();
        let (stage, wait) = (Stage::Asked, FIRST_LOOK);
        Self { probe, listeners, stage, begun: now, wait, next_look: now }
    }

    /// The port that its connections come from, while it matters.
    pub(super) fn port(&self) -> Option<u16> {
        (self.stage == Stage::Asked).then(|| self.probe.port())
    }

    /// Whether all listeners that its connections may wait at are among these.
    pub(super) fn waits_only_at(&self, listeners: &BTreeSet<u64>) -> bool {
        self.listeners.is_subset(listeners)
    }

    pub(super) const fn next_look(&self) -> Instant {
        self.next_look
    }

    pub(super) fn has_accepted(&self) -> bool {
        self.stage == Stage::Accepted
    }

    /// It has accepted, and may end the connections in its own way for a while.
    pub(super) fn note_accepted(&mut self) {
        let now = Instant::now();
        (self.stage, self.begun, self.next_look) = (Stage::Accepted, now, now + CLOSING);
    }

    /// Whether the server has closed what it accepted, or has had the time to.
    pub(super) fn is_closed(&mut self) -> bool {
        self.next_look = self.begun + CLOSING;
        self.probe.is_over() || self.begun.elapsed() >= CLOSING
    }

    /// What has become of its connections.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub(super) fn look(&mut self) -> Result<Look, SockDiagError> {
        self.probe.look()
    }

    /// As long as it is asked it is looked at again, less and less often.
    pub(super) fn look_again(&mut self) {
        if self.stage == Stage::Asked {
            self.next_look = Instant::now() + self.wait;
            self.wait = (self.wait * 2).min(LAST_LOOK);
        }
    }

    /// Whether a handshake that has not ended will not any more.
    pub(super) fn is_unanswered(&self) -> bool {
        self.begun.elapsed() >= UNANSWERED
    }

    /// Where nobody accepts, once somebody should have.
    pub(super) fn waits_for_long_at(&self) -> BTreeSet<SocketAddr> {
        match self.begun.elapsed() < UNANSWERED / 2 {
            true => BTreeSet::new(),
            false => self.probe.waits_at(),
        }
    }
}
