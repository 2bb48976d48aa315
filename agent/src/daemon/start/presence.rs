//! What shows others that an agent is here, and is made again when somebody removes it: the lock and the control socket.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt as _, net::UnixListener},
    path::{Path, PathBuf},
};

use agent_api::{Problem, ProblemKind};
use tokio::sync::mpsc::UnboundedSender;

use super::{lock::Lock, own_files};
use crate::places::Places;

/// What shows others that an agent is here.
pub(in crate::daemon) struct Presence {
    /// Held for the life of the agent.
    lock: Lock,
    /// Where a control socket goes that was bound again.
    sockets: UnboundedSender<UnixListener>,
}

impl Presence {
    pub(in crate::daemon) const fn new(lock: Lock, sockets: UnboundedSender<UnixListener>) -> Self {
        Self { lock, sockets }
    }

    /// Locks again where the file that is locked has lost its name: a second agent would lock another one.
    pub(super) fn mend_lock(&mut self, places: &Places) -> Result<Option<PathBuf>, Problem> {
        let path = places.lock_file();
        let named = match fs::metadata(&path) {
            Ok(named) => Some(named.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("examine", &path, &error)),
        };
        let ours = self.lock.inode().map_err(|error| failed("examine", &path, &error))?;
        if named == Some(ours) {
            return Ok(None);
        }
        self.lock = Lock::take(places)?;
        Ok(Some(path))
    }

    /// Who waits for an answer keeps the connection; who follows reconnects.
    pub(super) fn mend_socket(&self, places: &Places) -> Result<Option<PathBuf>, Problem> {
        let path = places.socket();
        if exists(&path)? {
            return Ok(None);
        }
        let socket = own_files::bind(&path)?;
        // The other half ends with the agent only.
        let _: Result<(), _> = self.sockets.send(socket);
        Ok(Some(path))
    }
}

pub(super) fn exists(path: &Path) -> Result<bool, Problem> {
    fs::exists(path).map_err(|error| failed("examine", path, &error))
}

pub(super) fn failed(operation: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new(ProblemKind::Failed, format!("{operation} `{}`", path.display())).because(error)
}
