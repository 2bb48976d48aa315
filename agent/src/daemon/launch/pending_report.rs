//! A launch of which nobody knows yet how it ends.

use std::{
    task::Poll,
    time::{Duration, Instant},
};

use crate::host::launch::{LaunchError, Report};

/// How long a launch may take; each of its steps takes microseconds on a sound machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The report of a candidate that is not executed yet. Whoever the server runs as can stop the process that is to become it, so that it
/// is waited for with a limit.
pub(in crate::daemon) struct PendingReport {
    report: Report,
    give_up: Instant,
}

impl PendingReport {
    pub(in crate::daemon) fn new(report: Report) -> Self {
        Self { report, give_up: Instant::now() + PATIENCE }
    }

    /// When it counts as failed without a report.
    pub(in crate::daemon) const fn give_up(&self) -> Instant {
        self.give_up
    }

    /// How the launch has ended, if it has.
    pub(in crate::daemon) fn poll(&mut self) -> Poll<Result<(), LaunchError>> {
        match self.report.poll() {
            Poll::Pending if self.give_up <= Instant::now() => {
                Poll::Ready(Err(LaunchError::TimedOut { patience: PATIENCE }))
            }
            polled => polled,
        }
    }
}
