//! The directories above the agent's own that were made for it: they go with it, whoever has made them, and however that one ended.
//!
//! They are written down before they are made, and beside the state: one that is damaged, or derived from what runs, knows nothing of
//! them. In the usual places there are none.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::state_file::boot_id;
use crate::{
    host::{bounded, os_text::OsText},
    places::Places,
};

/// What is known of them.
#[derive(Debug)]
pub struct Above {
    file: PathBuf,
    made: BTreeSet<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    /// Of an earlier start of the machine nothing is known: what has such a name now was made by somebody else.
    boot_id: String,
    made: Vec<OsText>,
}

impl Above {
    /// What has been written down by those before us.
    pub fn read(places: &Places) -> Self {
        let file = places.above_file();
        let made = written(&file).unwrap_or_default();
        Self { file, made }
    }

    /// This directory is about to be made, with those that lead to it and are not there.
    pub fn expect(&mut self, path: &Path) {
        let above = path.ancestors().skip(1);
        self.made.extend(above.take_while(|it| !it.exists()).map(Path::to_owned));
    }

    /// Whether there is anything to be written down.
    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Writes it down.
    ///
    /// # Errors
    ///
    /// When the file system refuses. Then they stay, should this process be killed.
    pub fn write(&self) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let boot_id = boot_id().map_err(io::Error::other)?;
        let made = self.made.iter().map(OsText::from).collect();
        let text = serde_json::to_vec(&Written { boot_id, made })?;
        let mut options = fs::OpenOptions::new();
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(flags);
        io::Write::write_all(&mut options.open(&self.file)?, &text)
    }

    /// Removes them, but for those in which there is something of somebody else's. What was written down has gone before.
    pub fn remove(self) {
        // One sorts before what is below it.
        for directory in self.made.iter().rev() {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%error, path = %directory.display(), "left where it is");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// What cannot be read is not known.
fn written(file: &Path) -> Option<BTreeSet<PathBuf>> {
    /// A few paths.
    const MOST: u64 = 1 << 20;
    let text = bounded::read_regular(file, MOST).ok()?;
    let Written { boot_id: then, made } = serde_json::from_slice(&text).ok()?;
    let is_ours = boot_id().is_ok_and(|now| now == then);
    is_ours.then(|| made.iter().map(|it| PathBuf::from(it.as_os_str())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        Places { runtime_dir: root.to_owned(), pin_dir: root.to_owned(), cgroup: None }
    }

    #[test]
    fn what_was_made_goes_and_what_was_there_or_is_used_stays() {
        let root = tempfile::tempdir().unwrap();
        let old = root.path().join("old");
        fs::create_dir(&old).unwrap();
        let (own, other) = (old.join("new/newer/own"), root.path().join("a/b/own"));
        let mut above = Above::read(&places(root.path()));
        for path in [&own, &other] {
            above.expect(path);
            fs::create_dir_all(path).unwrap();
            fs::remove_dir(path).unwrap();
        }
        above.write().unwrap();
        let of_somebody_else = root.path().join("a/file");
        fs::write(&of_somebody_else, "").unwrap();
        // Who comes after one that was killed.
        let mut above = Above::read(&places(root.path()));
        above.expect(&own);
        above.remove();
        assert!(old.exists() && !old.join("new").exists());
        assert!(of_somebody_else.exists() && !root.path().join("a/b").exists());
    }

    #[test]
    fn what_an_earlier_start_of_the_machine_made_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("directory");
        fs::create_dir(&directory).unwrap();
        let text = serde_json::json!({ "boot_id": "earlier", "made": [directory] });
        fs::write(places(root.path()).above_file(), text.to_string()).unwrap();
        assert!(Above::read(&places(root.path())).is_empty());
    }

    #[test]
    fn nothing_is_written_where_nothing_was_made() {
        let root = tempfile::tempdir().unwrap();
        let mut above = Above::read(&places(root.path()));
        above.expect(&root.path().join("own"));
        above.write().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
