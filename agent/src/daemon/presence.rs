//! What the agent has in the file system, and makes again when somebody removes it.
//!
//! Nothing of it is needed by a connection: steering is held by descriptors while the agent lives. But without the pins
//! steering would end with the agent, without the state nobody would know how to go on, and without the lock there could
//! be two agents.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt as _, net::UnixListener},
    path::{Path, PathBuf},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    agent::Agent,
    start::{self, Lock},
    state::troubles::Trouble,
};
use crate::{
    api::{EventKind, Problem, ProblemKind},
    places::Places,
};

/// What shows others that an agent is here.
pub(super) struct Presence {
    /// Held for the life of the agent.
    lock: Lock,
    /// Where a control socket goes that was bound again.
    sockets: UnboundedSender<UnixListener>,
}

impl Presence {
    pub(super) const fn new(lock: Lock, sockets: UnboundedSender<UnixListener>) -> Self {
        Self { lock, sockets }
    }

    /// Locks again where the file that is locked has lost its name: a second agent would lock another one.
    fn mend_lock(&mut self, places: &Places) -> Result<Option<PathBuf>, Problem> {
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
    fn mend_socket(&self, places: &Places) -> Result<Option<PathBuf>, Problem> {
        let path = places.socket();
        if exists(&path)? {
            return Ok(None);
        }
        let socket = start::bind(&path)?;
        // The other half ends with the agent only.
        let _: Result<(), _> = self.sockets.send(socket);
        Ok(Some(path))
    }
}

impl Agent {
    /// Asks to be told when something is removed.
    pub(super) fn watch_places(&self) -> Result<(), Problem> {
        self.watch_pins()?;
        self.watch_directory(&self.places.runtime_dir)
    }

    /// Looks whether all is there, makes again what is not, and says so.
    pub(super) fn mend(&mut self) {
        let mut mended = Vec::new();
        // The pins first: they are what connections depend on once the agent is gone.
        let pins = self.mend_pins(&mut mended);
        let runtime = self.mend_runtime(&mut mended);
        for path in mended {
            let message = format!("`{}` was removed, and was made again", path.display());
            self.journal.note_agent(EventKind::Warning, message);
        }
        match pins.and(runtime) {
            Ok(()) => self.over(Trouble::Removed, "all that was removed was made again"),
            Err(problem) if problem.kind == ProblemKind::Locked => self.has_to_go = Some(problem),
            Err(problem) => {
                let message = format!("cannot make again what was removed: {}", problem.in_full());
                self.trouble(Trouble::Removed, message);
            }
        }
    }

    fn mend_pins(&self, mended: &mut Vec<PathBuf>) -> Result<(), Problem> {
        start::mount_bpf(&self.places.pin_dir)?;
        mended.extend(self.datapath.mend_pins()?);
        self.watch_pins()?;
        // What was removed before the directories were watched.
        mended.extend(self.datapath.mend_pins()?);
        Ok(())
    }

    fn watch_pins(&self) -> Result<(), Problem> {
        // From the root on: a directory is not told when one above it is moved away.
        let root = &self.places.pin_dir;
        for directory in self.datapath.pin_directories() {
            let inside = directory.ancestors().take_while(|above| above.starts_with(root));
            inside.into_iter().try_for_each(|directory| self.watch_directory(directory))?;
        }
        Ok(())
    }

    fn watch_directory(&self, directory: &Path) -> Result<(), Problem> {
        self.watcher.watch_directory(directory).map_err(|error| failed("watch", directory, &error))
    }

    fn mend_runtime(&mut self, mended: &mut Vec<PathBuf>) -> Result<(), Problem> {
        let places = &self.places.clone();
        if !exists(&places.runtime_dir)? {
            start::private_directory(&places.runtime_dir)?;
            mended.push(places.runtime_dir.clone());
        }
        self.watch_directory(&places.runtime_dir)?;
        mended.extend(self.presence.mend_lock(places)?);
        let pid_file = places.pid_file();
        if !exists(&pid_file)? {
            start::write_pid_file(&pid_file)?;
            mended.push(pid_file);
        }
        mended.extend(self.presence.mend_socket(places)?);
        let state_file = places.state_file();
        if !self.records.is_empty() && !exists(&state_file)? {
            self.save()?;
            mended.push(state_file);
        }
        Ok(())
    }
}

fn exists(path: &Path) -> Result<bool, Problem> {
    fs::exists(path).map_err(|error| failed("examine", path, &error))
}

fn failed(operation: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new(ProblemKind::Failed, format!("{operation} `{}`", path.display())).because(error)
}
