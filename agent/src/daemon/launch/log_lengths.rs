//! Keeps the output of launched generations from filling the disk: what a server writes is not ours to limit, but it is ours to
//! throw away. The same for the log of an agent in the background.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent_terms::ServiceId;

use super::logs::{self, Room};
use crate::{
    daemon::{agent::Agent, state::troubles::Trouble},
    host::patience::{self, Whose},
};

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

    /// The same at once. Nobody waits for a server that has the lock of its own output.
    pub(in crate::daemon) fn look_at_logs(&mut self) {
        let services: Vec<_> = self.records.values().map(|it| it.service.id()).collect();
        for id in services {
            let logs = self.logs_of(&self.record(id).service);
            logs.iter().for_each(|path| self.watch_log(path));
            let looked: Vec<_> = logs.iter().map(|path| told(path, logs::room_of(path))).collect();
            self.tell_of_stuffed(id, looked.contains(&Some(Room::Stuffed)));
            let too_long = |(path, room): (_, Option<Room>)| {
                room.filter(|room| *room != Room::Fits).map(|_| path)
            };
            let long: Vec<PathBuf> = logs.into_iter().zip(looked).filter_map(too_long).collect();
            if long.is_empty() {
                continue;
            }
            let cut = move || long.iter().for_each(|path| cut(path));
            if patience::aside(Whose::Output(id.0), cut).is_err() {
                // It is still being cut.
                self.note_log_written();
            }
        }
        let ours = self.places.log_file();
        self.watch_log(&ours);
        cut(&ours);
    }

    fn watch_log(&self, path: &Path) {
        told(path, self.watcher.watch_log(path));
    }

    fn tell_of_stuffed(&mut self, id: ServiceId, is_stuffed: bool) {
        let name = self.record(id).service.name().clone();
        let trouble = Trouble::Output(id);
        if is_stuffed {
            let message = format!(
                "{name}: its server has given its output more attributes than can be removed: until it ends they take room where the runtime directory is (`df -i`)"
            );
            self.trouble(trouble, message);
        } else {
            self.over(trouble, &format!("{name}: its output has no such attributes any more"));
        }
    }
}

fn cut(path: &Path) {
    told(path, logs::cut(path));
}

/// Whatever keeps it from being cut now may not do so later.
fn told<T>(path: &Path, done: io::Result<T>) -> Option<T> {
    let warn = |error: &io::Error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, path = %path.display(), "cannot keep an output short");
        }
    };
    done.inspect_err(warn).ok()
}
