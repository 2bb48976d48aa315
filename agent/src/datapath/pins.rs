//! The pin directory: `vN/maps/NAME` and `vN/links/NAME`, all `0700`, where `N` is the version of the layouts.
//!
//! What is pinned is either whole and used as it is, or built anew beside what is left of it:
//!
//! ```text
//!   v2-new/maps           made and filled; the old programs go on with the maps that they have
//!   v1/links/NAME         each gets a program that works on the new maps; what steers comes last
//!   v1/links → v2-new/    one rename; a link does not notice
//!   v1 removed            its maps go with the last program that used them
//!   v2-new → v2           one rename: from here on it is whole
//! ```
//!
//! An agent that dies anywhere in between leaves a `-new`, which the next one builds again.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use agent_ebpf::SCHEMA;
use aya::maps::MapData;

use super::{DatapathError, error::Named as _, kernel::MAPS, programs::ATTACHED};

/// What was found below a pin directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Nothing at all.
    Nothing,
    /// Everything that this agent would pin.
    Whole,
    /// Less than that, or of an older version: what is wrong with it.
    Broken(String),
}

/// The directories that one agent works in.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    /// `vN`, or `vN-new` while it is built.
    current: PathBuf,
    /// Where the links are: those of an earlier agent stay in its directory until all is built.
    links: PathBuf,
}

/// Looks, and changes nothing.
///
/// # Errors
///
/// When the directory cannot be read, or a later agent made what is in it.
pub fn examine(root: &Path) -> Result<Pinned, DatapathError> {
    let names = match names(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pinned::Nothing),
        names => names.map_err(|source| pin_error("read", root, source))?,
    };
    match judge(&names) {
        Judgement::Other(found) => {
            Err(DatapathError::OtherSchema { path: root.to_owned(), found, known: SCHEMA })
        }
        Judgement::Nothing => Ok(Pinned::Nothing),
        Judgement::Broken(what) => Ok(Pinned::Broken(what)),
        Judgement::Ours => {
            let version = root.join(version());
            let maps = MAPS.iter().map(|map| version.join("maps").join(map));
            let links = ATTACHED.iter().map(|program| version.join("links").join(program));
            let gone: Vec<_> =
                maps.chain(links).filter(|pin| !pin.exists()).map(|pin| quoted(&pin)).collect();
            match gone.is_empty() {
                true => Ok(Pinned::Whole),
                false => Ok(Pinned::Broken(format!("gone are {}", gone.join(", ")))),
            }
        }
    }
}

/// Removes all pins, of whatever version: the programs are detached, and the ports are the kernel's again.
///
/// # Errors
///
/// When something cannot be removed.
pub fn clear(root: &Path) -> Result<(), DatapathError> {
    if !root.exists() {
        return Ok(());
    }
    for name in names(root).map_err(|source| pin_error("read", root, source))? {
        remove_version(&root.join(name))?;
    }
    fs::remove_dir(root).map_err(|source| pin_error("remove", root, source))
}

/// Where a program's link is pinned, of whichever version; `None` if it is not.
pub(super) fn link(root: &Path, program: &str) -> Result<Option<PathBuf>, DatapathError> {
    let versions = names(root).map_err(|source| pin_error("read", root, source))?;
    let mut links = versions.iter().map(|version| root.join(version).join("links").join(program));
    Ok(links.find(|link| link.exists()))
}

/// What the names in a pin directory mean.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Nothing,
    Ours,
    Broken(String),
    Other(String),
}

fn judge(names: &[String]) -> Judgement {
    for name in names {
        let number = name.strip_prefix('v').map(|rest| rest.strip_suffix(NEW).unwrap_or(rest));
        match number.and_then(|number| number.parse::<u32>().ok()) {
            Some(number) if number <= SCHEMA => {}
            Some(_) | None => return Judgement::Other(name.trim_start_matches('v').to_owned()),
        }
    }
    let unfinished = names.iter().any(|name| name.ends_with(NEW));
    match names {
        [] => Judgement::Nothing,
        [only] if *only == version() => Judgement::Ours,
        _ if unfinished => {
            Judgement::Broken("they were being built when the agent ended".to_owned())
        }
        _ => Judgement::Broken(format!("they are of schema version {}", oldest(names))),
    }
}

fn oldest(names: &[String]) -> &str {
    names.iter().map(|name| name.trim_start_matches('v')).min().unwrap_or_default()
}

impl Pins {
    /// Of pins that are whole.
    pub(super) fn adopt(root: &Path) -> Self {
        let current = root.join(version());
        Self { root: root.to_owned(), links: current.join("links"), current }
    }

    /// Begins to build anew. What is there stays in use.
    pub(super) fn begin(root: &Path) -> Result<Self, DatapathError> {
        make_directory(root)?;
        if !is_bpf(root).map_err(|source| pin_error("examine", root, source))? {
            return Err(DatapathError::NoBpfFileSystem(root.to_owned()));
        }
        let current = root.join(format!("{}{NEW}", version()));
        let mut pins = Self { root: root.to_owned(), links: current.join("links"), current };
        // Of an agent that ended while it built: its maps were not used yet, or their programs keep them.
        remove_files(&pins.maps())?;
        make_directory(&pins.maps())?;
        if !pins.links.exists() {
            let others = pins.others()?.into_iter();
            match others.map(|name| root.join(name).join("links")).find(|links| links.exists()) {
                Some(theirs) => pins.links = theirs,
                None => make_directory(&pins.links)?,
            }
        }
        Ok(pins)
    }

    /// Where what was built stands from now on; what it replaces goes.
    pub(super) fn finish(&mut self) -> Result<(), DatapathError> {
        let finished = self.root.join(version());
        if self.current == finished {
            return Ok(());
        }
        let links = self.current.join("links");
        if self.links != links {
            fs::rename(&self.links, &links)
                .map_err(|source| pin_error("move", &self.links, source))?;
        }
        for name in self.others()? {
            remove_version(&self.root.join(name))?;
        }
        fs::rename(&self.current, &finished)
            .map_err(|source| pin_error("rename", &self.current, source))?;
        self.links = finished.join("links");
        self.current = finished;
        Ok(())
    }

    /// After a failure: takes back what was made in vain. What an earlier agent left stays.
    pub(super) fn abandon(&self) {
        if self.links.starts_with(&self.current) {
            return;
        }
        if let Err(error) = remove_version(&self.current) {
            tracing::warn!(%error, "cannot remove the pins that were made in vain");
        }
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.current.join("maps")
    }

    /// A descriptor of a map that is only handed on.
    pub(super) fn descriptor(&self, map: &'static str) -> Result<OwnedFd, DatapathError> {
        let path = self.maps().join(map);
        let data = MapData::from_pin(&path).named("open", map)?;
        data.fd().as_fd().try_clone_to_owned().map_err(|source| pin_error("open", &path, source))
    }

    pub(super) fn links(&self) -> &Path {
        &self.links
    }

    pub(super) fn remove(&self) -> Result<(), DatapathError> {
        clear(&self.root)
    }

    /// The youngest first.
    fn others(&self) -> Result<Vec<String>, DatapathError> {
        let mut names =
            names(&self.root).map_err(|source| pin_error("read", &self.root, source))?;
        names.retain(|name| self.root.join(name) != self.current);
        names.sort_by(|a, b| b.cmp(a));
        Ok(names)
    }
}

/// Links first: a program that is still attached must find its maps whole.
fn remove_version(version: &Path) -> Result<(), DatapathError> {
    for directory in [version.join("links"), version.join("maps"), version.to_owned()] {
        remove_files(&directory)?;
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(pin_error("remove", &directory, error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn remove_files(directory: &Path) -> Result<(), DatapathError> {
    let names = match names(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(|source| pin_error("read", directory, source))?,
    };
    for path in names.iter().map(|name| directory.join(name)).filter(|path| !path.is_dir()) {
        fs::remove_file(&path).map_err(|source| pin_error("remove", &path, source))?;
    }
    Ok(())
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn version() -> String {
    format!("v{SCHEMA}")
}

fn quoted(path: &Path) -> String {
    format!("`{}`", path.display())
}

pub(super) fn make_directory(path: &Path) -> Result<(), DatapathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| pin_error("create", path, source))
}

fn is_bpf(path: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    Ok(rustix::fs::statfs(path)?.f_type as u64 == BPF_FS_MAGIC)
}

pub(super) fn pin_error(operation: &'static str, path: &Path, source: io::Error) -> DatapathError {
    DatapathError::Pin { operation, path: path.to_owned(), source }
}

/// Marks what is being built. The BPF file system refuses names with a dot (`bpf_lookup`).
const NEW: &str = "-new";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_is_older_or_unfinished_is_built_again() {
        let ours = version();
        let unfinished = format!("{ours}{NEW}");
        assert_eq!(judge(&[]), Judgement::Nothing);
        assert_eq!(judge(&names(&[&ours])), Judgement::Ours);
        assert!(matches!(judge(&names(&["v0"])), Judgement::Broken(_)));
        assert!(matches!(judge(&names(&[&ours, &unfinished])), Judgement::Broken(_)));
        assert!(matches!(judge(&names(&[&unfinished])), Judgement::Broken(_)));
        let newer = format!("v{}", SCHEMA + 1);
        assert!(matches!(judge(&names(&[&newer])), Judgement::Other(_)));
        assert!(matches!(judge(&names(&[&ours, &format!("{newer}{NEW}")])), Judgement::Other(_)));
        assert_eq!(judge(&names(&["somebody"])), Judgement::Other("somebody".to_owned()));
    }
}
