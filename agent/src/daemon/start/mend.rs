//! What the agent has in the file system, and makes again when somebody removes it.
//!
//! Nothing of it is needed by a connection: steering is held by descriptors while the agent lives. But without the pins
//! steering would end with the agent, without the state nobody would know how to go on, and without the lock there could
//! be two agents.

use std::path::{Path, PathBuf};

use agent_api::{EventKind, Problem, ProblemKind};

use super::{
    directory::private_directory,
    own_files,
    pin_directory::mount_bpf,
    presence::{exists, failed},
};
use crate::daemon::{agent::Agent, course::End, state::troubles::Trouble};

impl Agent {
    /// Asks to be told when something is removed.
    pub(in crate::daemon) fn watch_places(&self) -> Result<(), Problem> {
        self.watch_pins()?;
        self.watch_directory(&self.places.runtime_dir)
    }

    /// Looks whether all is there, makes again what is not, and says so.
    pub(in crate::daemon) fn mend(&mut self) {
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
            Err(problem) if problem.kind == ProblemKind::Locked => {
                self.course.end_with(End::GivesWay(problem));
            }
            Err(problem) => {
                let message = format!("cannot make again what was removed: {}", problem.in_full());
                self.trouble(Trouble::Removed, message);
            }
        }
    }

    fn mend_pins(&self, mended: &mut Vec<PathBuf>) -> Result<(), Problem> {
        mount_bpf(&self.places.pin_dir)?;
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
            private_directory(&places.runtime_dir)?;
            mended.push(places.runtime_dir.clone());
        }
        self.watch_directory(&places.runtime_dir)?;
        mended.extend(self.presence.mend_lock(places)?);
        let pid_file = places.pid_file();
        if !exists(&pid_file)? {
            own_files::write_pid_file(&pid_file)?;
            mended.push(pid_file);
        }
        mended.extend(self.presence.mend_socket(places)?);
        let above_file = places.above_file();
        if !self.above.is_empty() && !exists(&above_file)? {
            self.above.write().map_err(|error| failed("write", &above_file, &error))?;
            mended.push(above_file);
        }
        let state_file = places.state_file();
        if !self.records.is_empty() && !exists(&state_file)? {
            self.save()?;
            mended.push(state_file);
        }
        Ok(())
    }
}
