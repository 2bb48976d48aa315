//! What a group allows its processes, given to another group.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Cgroup, CgroupError, Hierarchy};
use crate::host::os_text::OsText;

/// What one group allows its processes, where that is not what any group does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Its directory.
    group: OsText,
    /// Files, and what they say.
    files: Vec<(String, String)>,
}

impl Cgroup {
    /// What it and those above it allow, it first, without the root and those above that allow all.
    ///
    /// # Errors
    ///
    /// Names the file that could not be read. When there are more above it than anybody needs: whoever may make groups decides that.
    pub fn limits(&self, hierarchy: &Hierarchy) -> Result<Vec<Limits>, CgroupError> {
        let root = hierarchy.root();
        let below_root = |directory: &&Path| *directory != root.directory;
        if self.level > DEEPEST {
            let message = format!("it is more than {DEEPEST} groups below the root");
            return Err(self.failed("read what is allowed in", io::Error::other(message)));
        }
        let above = self.directory.ancestors().take_while(below_root);
        let limits =
            above.map(|group| Ok(Limits { group: group.into(), files: settings_of(group)? }));
        let says_something = |(place, limits): &(usize, Result<Limits, CgroupError>)| {
            *place == 0 || limits.as_ref().map_or(true, |it| !it.files.is_empty())
        };
        limits.enumerate().filter(says_something).map(|(_, limits)| limits).collect()
    }

    /// Makes this group, which is new, as narrow as another one, and those above that one which are not above this one too.
    ///
    /// # Kernel
    ///
    /// A group has the files of a controller if the one above it passes it on (`cgroup.subtree_control`), which a group that
    /// has processes of its own may not, unless it is the root.
    ///
    /// # Errors
    ///
    /// Names the file that is not there, or could not be written.
    pub fn resemble(&self, limits: &[Limits], hierarchy: &Hierarchy) -> Result<(), CgroupError> {
        let root = hierarchy.root();
        for (place, Limits { group, files }) in limits.iter().enumerate() {
            let shared = self.directory.starts_with(group.as_os_str());
            for (file, theirs) in files.iter().filter(|_| !shared) {
                self.set(file, theirs, place == 0, &root)?;
            }
        }
        Ok(())
    }

    /// Sets one file as it is in another group. Of a group above only what is narrower counts.
    fn set(&self, file: &str, theirs: &str, is_own: bool, root: &Self) -> Result<(), CgroupError> {
        let path = self.directory.join(file);
        let ours = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.ask_for(file, root)?;
                fs::read_to_string(&path)
            }
            read => read,
        };
        let failed =
            |source| CgroupError::Failed { operation: "limit by", path: path.clone(), source };
        let ours = ours.map_err(failed)?;
        let differs = if is_own { ours.trim() != theirs } else { is_narrower(theirs, ours.trim()) };
        if !differs {
            return Ok(());
        }
        fs::write(&path, theirs).map_err(failed)
    }

    /// Has the groups above pass on the controller of a file.
    fn ask_for(&self, file: &str, root: &Self) -> Result<(), CgroupError> {
        let controller = file.split('.').next().unwrap_or_default();
        let above: Vec<_> = self
            .directory
            .ancestors()
            .skip(1)
            .take_while(|it| it.starts_with(&root.directory))
            .collect();
        for group in above.into_iter().rev() {
            let path = group.join("cgroup.subtree_control");
            let passed_on = fs::read_to_string(&path).unwrap_or_default();
            if !passed_on.split_ascii_whitespace().any(|it| it == controller) {
                fs::write(&path, format!("+{controller}")).map_err(|source| {
                    CgroupError::Failed { operation: "pass a controller on by", path, source }
                })?;
            }
        }
        Ok(())
    }
}

/// The files of a group that say what it may use, and what they say, where a new group says anything else.
fn settings_of(group: &Path) -> Result<Vec<(String, String)>, CgroupError> {
    let failed = |path: PathBuf| {
        move |source| CgroupError::Failed { operation: "read", path: path.clone(), source }
    };
    let mut settings = Vec::new();
    for entry in fs::read_dir(group).map_err(failed(group.to_owned()))? {
        let entry = entry.map_err(failed(group.to_owned()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with("cgroup.") && SETTINGS.iter().any(|ending| name.ends_with(ending)) {
            let text = fs::read_to_string(entry.path()).map_err(failed(entry.path()))?;
            if !is_default(&name, text.trim()) {
                settings.push((name, text.trim().to_owned()));
            }
        }
    }
    Ok(settings)
}

/// All of it is written down, and looked at whenever that is done.
const DEEPEST: u32 = 32;

/// How such files end: limits, shares, and the processors and memory nodes of `cpuset`.
const SETTINGS: [&str; 7] =
    [".max", ".high", ".weight", ".latency", "cpuset.cpus", "cpuset.mems", "cpu.idle"];

/// An empty one (of `cpuset`) means that of the group above.
fn is_default(file: &str, text: &str) -> bool {
    match text {
        "" | "max" | "max 100000" => true,
        "100" | "default 100" => file.ends_with(".weight"),
        "0" => file == "cpu.idle",
        _ => false,
    }
}

/// Whether a limit, alone or per period, is below another one. What is no number is `max`.
fn is_narrower(theirs: &str, ours: &str) -> bool {
    let value = |text: &str| {
        let mut words = text.split_ascii_whitespace().map(str::parse::<f64>);
        let limit = words.next()?.ok()?;
        Some(limit / words.next().and_then(Result::ok).unwrap_or(1.0))
    };
    match (value(theirs), value(ours)) {
        (Some(theirs), Some(ours)) => theirs < ours,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_group_says_is_not_written_down() {
        for (file, text) in [
            ("cpu.weight", "100"),
            ("io.weight", "default 100"),
            ("cpu.idle", "0"),
            ("cpuset.cpus", ""),
        ] {
            assert!(is_default(file, text), "{file}");
        }
        assert!(is_default("pids.max", "max") && is_default("cpu.max", "max 100000"));
        // No weight, though it looks like one.
        for (file, text) in [("pids.max", "100"), ("memory.max", "0"), ("cpuset.cpus", "0")] {
            assert!(!is_default(file, text), "{file}");
        }
    }

    #[test]
    fn a_group_that_is_deeper_than_any_is_not_read() {
        let Ok(hierarchy) = Hierarchy::find() else { return };
        let root = hierarchy.root();
        assert!(root.limits(&hierarchy).unwrap().is_empty());
        let refused = Cgroup { level: DEEPEST + 1, ..root }.limits(&hierarchy).unwrap_err();
        assert!(refused.to_string().contains("read what is allowed in"), "{refused}");
    }

    #[test]
    fn the_narrower_of_two_limits() {
        assert!(is_narrower("100", "max") && is_narrower("100", "200"));
        assert!(is_narrower("50000 100000", "max 100000") && is_narrower("1 100", "2 100"));
        for (theirs, ours) in
            [("max", "max"), ("max", "1"), ("200", "100"), ("max 100000", "1 2"), ("", "1")]
        {
            assert!(!is_narrower(theirs, ours), "{theirs} {ours}");
        }
    }
}
