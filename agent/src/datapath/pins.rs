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
    collections::BTreeSet,
    fs,
    io::ErrorKind::{DirectoryNotEmpty, NotFound},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use agent_ebpf::SCHEMA;
use aya::maps::MapData;

use super::{
    DatapathError,
    directories::{
        is_bpf, is_directory, is_nothing, make_directory, make_private, make_root, names,
        pin_error, remove,
    },
    error::Named as _,
    place::Place,
    programs::{ATTACHED, COMFORTS},
    whole::usable_links,
};

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
    /// Those that a program of ours can be put behind.
    usable: BTreeSet<&'static str>,
}

/// Removes all pins, of whatever version: the programs are detached, and the ports are the kernel's again. What others have
/// beside them stays.
///
/// # Errors
///
/// When something cannot be removed.
pub fn clear(root: &Path) -> Result<(), DatapathError> {
    // Elsewhere nothing can be a pin, and somebody else's directory may have such a name.
    if is_bpf(root) {
        for name in ours(root)? {
            remove_version(&root.join(name))?;
        }
    }
    if is_nothing(root) {
        return Ok(());
    }
    match fs::remove_dir(root) {
        Err(error) if [NotFound, DirectoryNotEmpty].contains(&error.kind()) => Ok(()),
        removed => removed.map_err(|source| pin_error("remove", root, source)),
    }
}

/// Where a program's link is pinned, of whichever version; `None` if it is not.
pub(super) fn link(root: &Path, program: &str) -> Result<Option<PathBuf>, DatapathError> {
    if !root.is_dir() {
        return Ok(None);
    }
    let versions = ours(root)?.into_iter();
    let mut links = versions.map(|version| root.join(version).join("links").join(program));
    Ok(links.find(|link| link.exists()))
}

/// What the names in a pin directory mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Nothing,
    Ours,
    Broken(String),
    Other(String),
}

/// Names that we never give are others', and no matter of ours.
pub(super) fn judge(names: &[String]) -> Judgement {
    let ours: Vec<_> = names.iter().filter_map(|name| Some((number_in(name)?, name))).collect();
    if let Some((number, _)) = ours.iter().find(|(number, _)| *number > SCHEMA) {
        return Judgement::Other(number.to_string());
    }
    let unfinished = ours.iter().any(|(_, name)| name.ends_with(NEW));
    match (&ours[..], ours.iter().map(|(number, _)| number).min()) {
        ([], _) | (_, None) => Judgement::Nothing,
        ([(_, only)], _) if **only == version() => Judgement::Ours,
        _ if unfinished => {
            Judgement::Broken("they were being built when the agent ended".to_owned())
        }
        (_, Some(oldest)) => Judgement::Broken(format!("they are of schema version {oldest}")),
    }
}

/// The version that a directory is of, if we could have made it.
fn number_in(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.trim_end_matches(NEW).parse().ok()
}

impl Pins {
    /// Of pins that are whole.
    pub(super) fn adopt(root: &Path) -> Self {
        let current = root.join(version());
        let links = current.join("links");
        let pinned = ATTACHED.into_iter().chain(COMFORTS);
        let usable = pinned.filter(|program| links.join(program).exists()).collect();
        Self { root: root.to_owned(), links, current, usable }
    }

    /// Begins to build anew. What is there stays in use.
    pub(super) fn begin(root: &Path, place: Place) -> Result<Self, DatapathError> {
        make_root(root)?;
        let current = root.join(format!("{}{NEW}", version()));
        let links = current.join("links");
        let mut pins = Self { root: root.to_owned(), links, current, usable: BTreeSet::new() };
        if !is_directory(&pins.current) {
            remove(&pins.current)?;
        }
        // Of an agent that ended while it built: its maps were not used yet, or their programs keep them.
        remove(&pins.maps())?;
        make_directory(&pins.maps())?;
        if !is_directory(&pins.links) {
            remove(&pins.links)?;
            let others = pins.others()?.into_iter();
            let mut others = others.map(|name| root.join(name).join("links"));
            match others.find(|links| is_directory(links)) {
                Some(theirs) => pins.links = theirs,
                None => make_directory(&pins.links)?,
            }
        }
        make_private(&pins.links)?;
        pins.usable = usable_links(&pins.links, place)?;
        Ok(pins)
    }

    /// Where what was built stands from now on; what it replaces goes.
    pub(super) fn finish(&mut self) -> Result<(), DatapathError> {
        let finished = self.root.join(version());
        if self.current == finished {
            return Ok(());
        }
        self.remove_strange_links()?;
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

    /// Whether a program can be put behind the link that is pinned under its name.
    pub(super) fn has_link(&self, program: &str) -> bool {
        self.usable.contains(program)
    }

    pub(super) fn remove(&self) -> Result<(), DatapathError> {
        clear(&self.root)
    }

    /// Whatever somebody put beside our links: in our directory it would be taken for one of them.
    fn remove_strange_links(&self) -> Result<(), DatapathError> {
        let names = names(&self.links).map_err(|source| pin_error("read", &self.links, source))?;
        let is_ours = |name: &&String| ATTACHED.into_iter().chain(COMFORTS).any(|it| it == **name);
        names
            .iter()
            .filter(|name| !is_ours(name))
            .try_for_each(|name| remove(&self.links.join(name)))
    }

    /// The youngest first.
    fn others(&self) -> Result<Vec<String>, DatapathError> {
        let mut names = ours(&self.root)?;
        names.retain(|name| self.root.join(name) != self.current);
        names.sort_by(|a, b| b.cmp(a));
        Ok(names)
    }
}

/// Links first: a program that is still attached must find its maps whole.
fn remove_version(version: &Path) -> Result<(), DatapathError> {
    if is_directory(version) {
        remove(&version.join("links"))?;
    }
    remove(version)
}

/// The names of versions in a pin directory.
fn ours(root: &Path) -> Result<Vec<String>, DatapathError> {
    let mut names = names(root).map_err(|source| pin_error("read", root, source))?;
    names.retain(|name| number_in(name).is_some());
    Ok(names)
}

pub(super) fn version() -> String {
    format!("v{SCHEMA}")
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
        for somebody in ["somebody", "v", "vx", "v1-old"] {
            assert_eq!(judge(&names(&[somebody])), Judgement::Nothing);
            assert_eq!(judge(&names(&[somebody, &ours])), Judgement::Ours);
        }
    }
}
