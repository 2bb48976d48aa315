//! What the agent knows besides the kernel maps: one small file, which is replaced as a whole.

#[cfg(test)]
mod fuzz;
mod replace;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agent_api::{Problem, ProblemKind, RequestId};
use agent_rollout::Service;
use serde::{Deserialize, Serialize};

use crate::{
    daemon::{
        launch::{given::Given, kept_name::KeptName},
        looks::starter_of::StarterOf,
        state::whereabouts::Whereabouts,
    },
    host::{bounded, context::Context, os_text::OsText},
};

/// Version of the file. A newer one is refused, an older one would be converted here.
const VERSION: u32 = 1;

/// Larger than any state we write: 1,024 services of 64 remembered rollouts.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// Content of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateFile {
    /// Inode number of the network namespace that the agent serves.
    pub network_namespace: u64,
    /// Of which start of the machine it speaks: pins and processes do not outlive one, a file may.
    pub boot_id: String,
    /// Everything that was attached.
    pub services: Vec<Record>,
    /// Whether its agent was to end with the last `detach`; one that replaces it does too.
    #[serde(default)]
    pub exit_when_detached: bool,
    /// Where all this is steered from. An earlier agent did not write it down.
    #[serde(default)]
    pub whereabouts: Option<Whereabouts>,
}

/// One service and what it takes to launch its next generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its generations and rollouts.
    pub service: Service,
    /// User, directory, environment and limits of its server when last seen alive.
    pub context: Context,
    /// Who served last: one that somebody else starts anew is known by it.
    #[serde(default)]
    pub mark: Option<Mark>,
    /// The cgroup (v2, absolute path) that its first generation was found in, to which `detach` returns launched ones;
    /// empty where nobody knows.
    pub origin_cgroup: OsText,
    /// What was begun and is not finished: whoever reads this takes it back, or finishes it.
    #[serde(default)]
    pub unfinished: Option<Unfinished>,
    /// Which requests began the rollouts that are remembered: one that is asked again is answered, and not begun again.
    #[serde(default)]
    pub requests: BTreeMap<u64, RequestId>,
    /// What each generation that lives was given, by its number: its successor gets the same.
    #[serde(default)]
    pub given: BTreeMap<u32, Given>,
    /// Names that have a second one while a generation ends.
    #[serde(default)]
    pub kept_names: Vec<KeptName>,
    /// Who has started generations that were found, and may start them again.
    #[serde(default)]
    pub starters: Vec<StarterOf>,
}

/// By what a server is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its effective user.
    pub user: u32,
    /// The file name of its program.
    pub program: OsText,
}

/// A change of many steps, written down before the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    /// The port is being taken charge of: taken back.
    Attach,
    /// It is being handed back: finished.
    Detach,
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The system said no.
    #[error("cannot {operation} the state file `{}`", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It is not ours, or half of it is missing.
    #[error("`{}` is no state file of this agent", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It is too large to be ours.
    #[error("`{}` has more than {MAX_BYTES} bytes, as no state file of this agent", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else decides what is in it.
    #[error("the state file `{}` {why}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// By what.
        why: String,
    },
    /// A later agent wrote it.
    #[error("`{}` has version {found}, this agent knows version {VERSION}", .path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    agent_state_version: u32,
    #[serde(flatten)]
    state: T,
}

impl StateFile {
    /// Reads the state; `None` if there is no file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not ours. It is left as it is.
    pub fn read(path: &Path) -> Result<Option<Self>, StateFileError> {
        let failed =
            |source| StateFileError::Io { operation: "read", path: path.to_owned(), source };
        let file = match bounded::open_regular(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        if let Some(why) = foreign(&file.metadata().map_err(failed)?) {
            return Err(StateFileError::Foreign { path: path.to_owned(), why });
        }
        match bounded::whole(file, MAX_BYTES) {
            Ok(text) => Self::parse(&text, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(StateFileError::TooLarge { path: path.to_owned() })
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, StateFileError> {
        let damaged = |source| StateFileError::Damaged { path: path.to_owned(), source };
        let version: Versioned<serde_json::Value> =
            serde_json::from_slice(text).map_err(damaged)?;
        if version.agent_state_version != VERSION {
            return Err(StateFileError::OtherVersion {
                path: path.to_owned(),
                found: version.agent_state_version,
            });
        }
        let state: Self = serde_json::from_value(version.state).map_err(damaged)?;
        state.check().map_err(|what| damaged(serde::de::Error::custom(what)))?;
        Ok(state)
    }

    /// What has the form of a state and is none would only be noticed later, and by parts.
    fn check(&self) -> Result<(), String> {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for Record { service, .. } in &self.services {
            if !ids.insert(service.id()) || !names.insert(service.name()) {
                return Err(format!("service `{}` is there twice", service.name()));
            }
            if !service.is_sound() {
                return Err(format!("service `{}` contradicts itself", service.name()));
            }
        }
        Ok(())
    }

    /// Replaces the file. A reader sees the old state or the new one, never a part.
    ///
    /// # Errors
    ///
    /// When the file system refuses; the old state is then still there.
    pub fn write(&self, path: &Path) -> Result<(), StateFileError> {
        let failed = |operation| {
            move |source| StateFileError::Io { operation, path: path.to_owned(), source }
        };
        let text = self.text().map_err(|error| failed("write")(error.into()))?;
        // Nobody could read it back.
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(StateFileError::TooLarge { path: path.to_owned() });
        }
        replace::replace(path, text, MAX_BYTES as usize)
            .map_err(|(operation, source)| failed(operation)(source))
    }

    fn text(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Versioned { agent_state_version: VERSION, state: self })
    }
}

/// Which start of the machine this is.
///
/// # Errors
///
/// When the kernel does not say.
pub(in crate::daemon) fn boot_id() -> Result<String, Problem> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path)
        .map_err(|error| Problem::new(ProblemKind::Failed, format!("read `{path}`: {error}")))?;
    Ok(text.trim().to_owned())
}

/// Whether somebody else decides what is in a file, in words. Its directory is ours by now, which it may not always have been.
fn foreign(about: &Metadata) -> Option<String> {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    if ![0, rustix::process::geteuid().as_raw()].contains(&about.uid()) {
        return Some(format!("belongs to uid {}", about.uid()));
    }
    (about.mode() & OTHERS_MAY_WRITE != 0).then(|| "can be changed by others".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;
    use crate::host::process::Pid;

    #[test]
    fn what_is_written_is_read_back_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(StateFile::read(&path).unwrap(), None);
        let state =
            StateFile { network_namespace: 7, boot_id: "b".to_owned(), ..StateFile::default() };
        state.write(&path).unwrap();
        assert_eq!(StateFile::read(&path).unwrap(), Some(state));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// What comes next is written where what was before is, and may be shorter or longer.
    #[test]
    fn each_write_replaces_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        for length in [10, 200_000, 3, 70_000, 0] {
            let state = StateFile { boot_id: "b".repeat(length), ..StateFile::default() };
            state.write(&path).unwrap();
            assert_eq!(StateFile::read(&path).unwrap(), Some(state));
        }
        let files = fs::read_dir(directory.path()).unwrap();
        let sizes: Vec<_> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes[0], sizes[1], "both have the same room");
    }

    #[test]
    fn what_is_no_regular_file_is_no_state_and_nobody_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(StateFile::read(&path), Err(StateFileError::Io { .. })));
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(matches!(StateFile::read(&path), Err(StateFileError::Io { .. })));
    }

    #[test]
    fn what_somebody_else_can_change_is_no_state_of_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        StateFile::default().write(&path).unwrap();
        StateFile::read(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = StateFile::read(&path).unwrap_err();
        assert!(error.to_string().ends_with("can be changed by others"), "{error}");
        StateFile::default().write(&path).unwrap();
        StateFile::read(&path).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
            let error = StateFile::read(&path).unwrap_err();
            assert!(error.to_string().ends_with("belongs to uid 1000"), "{error}");
        }
    }

    #[test]
    fn nothing_is_written_to_what_somebody_has_put_where_the_next_state_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let [path, next, precious] =
            ["state.json", "state.new", "precious"].map(|it| directory.path().join(it));
        fs::write(&precious, "as it was").unwrap();
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&precious, &next).unwrap();
        StateFile::default().write(&path).unwrap();
        fs::remove_file(&next).unwrap();
        fs::hard_link(&precious, &next).unwrap();
        StateFile::default().write(&path).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "as it was");
        assert_eq!(StateFile::read(&path).unwrap(), Some(StateFile::default()));
    }

    #[test]
    fn a_state_that_contradicts_itself_is_damaged() {
        let record = |name: &str, id: u32, number: u32, last: u32| {
            json!({
                "service": {
                    "id": id, "name": name, "endpoints": [], "rollouts": [], "last_rollout": 0,
                    "generations": [{
                        "number": number, "phase": {"name": "primary"}, "origin": {"origin": "found"},
                        "hold": "shared", "since": 0, "processes": [], "listeners": [],
                    }],
                    "last_generation": last,
                },
                "context": Context::of(Pid::ours(), Pid::ours()).unwrap(), "origin_cgroup": "/c",
            })
        };
        let read = |services: &[serde_json::Value]| {
            let text = json!({
                "agent_state_version": 1, "network_namespace": 1, "boot_id": "b", "services": services,
            });
            StateFile::parse(text.to_string().as_bytes(), Path::new("state.json"))
        };
        read(&[record("web", 1, 3, 3), record("api", 2, 1, 2)]).unwrap();
        for services in [
            &[record("web", 1, 1, 1), record("web", 2, 1, 1)][..],
            &[record("web", 1, 1, 1), record("api", 1, 1, 1)],
            &[record("web", 1, 2, 1)],
            &[record("web", 1, 1, u32::MAX)],
        ] {
            assert!(matches!(read(services), Err(StateFileError::Damaged { .. })), "{services:?}");
        }
    }

    #[test]
    fn truncated_foreign_and_newer_files_are_told_apart_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        for (text, damaged) in [
            (r#"{"agent_state_version":1,"network_na"#, true),
            (r#"{"hello":"world"}"#, true),
            ("", true),
            (r#"{"agent_state_version":2,"later":true}"#, false),
        ] {
            fs::write(&path, text).unwrap();
            match StateFile::read(&path).unwrap_err() {
                StateFileError::Damaged { .. } => assert!(damaged, "{text}"),
                StateFileError::OtherVersion { found, .. } => {
                    assert!(!damaged && found == 2, "{text}");
                }
                other => panic!("{other}"),
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
