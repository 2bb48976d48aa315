//! Keeps the output of launched generations from filling the disk: what a server writes is not ours to limit, but it is ours to
//! throw away. The same for the log of an agent in the background.

use std::{
    io,
    time::{Duration, Instant},
};

use super::logs;
use crate::daemon::agent::Agent;

/// Between two looks at files that are written all the time: as long as nothing is written nobody looks.
const LOOK: Duration = Duration::from_secs(1);

impl Agent {
    /// A server has written something: more may come before its file is looked at.
    pub(in crate::daemon) fn note_log_written(&mut self) {
        self.next_log_look.get_or_insert_with(|| Instant::now() + LOOK);
    }

    /// Cuts what has become too long, and waits for more.
    pub(in crate::daemon) fn look_at_logs_where_due(&mut self) {
        if self.next_log_look.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.next_log_look = None;
        self.look_at_logs();
    }

    /// The same at once.
    pub(in crate::daemon) fn look_at_logs(&self) {
        for path in self.all_logs().into_iter().chain([self.places.log_file()]) {
            // Whatever keeps it from being cut now may not do so later.
            let (cut, watched) = (logs::cut(&path), self.watcher.watch_log(&path));
            match cut.and(watched) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "cannot keep an output short");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}
