//! What a group allows its processes, given to another group.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Cgroup, CgroupError, Hierarchy};

impl Cgroup {
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
    pub fn resemble(&self, other: &Self, hierarchy: &Hierarchy) -> Result<(), CgroupError> {
        let root = hierarchy.root();
        let below_root = |directory: &&Path| *directory != root.directory;
        let above = other.directory.ancestors().take_while(below_root);
        for group in above.filter(|it| !self.directory.starts_with(it)) {
            for (file, theirs) in settings_of(group)? {
                self.set(&file, &theirs, group == other.directory, &root)?;
            }
        }
        Ok(())
    }

    /// Sets one file as it is in another group. Of a group above only what is narrower counts.
    fn set(&self, file: &str, theirs: &str, is_own: bool, root: &Self) -> Result<(), CgroupError> {
        let path = self.directory.join(file);
        let ours = match fs::read_to_string(&path) {
            // What cannot be limited here, and is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_default(theirs) => {
                return Ok(());
            }
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
        // An empty one (of `cpuset`) means that of the group above.
        if !differs || theirs.is_empty() {
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

/// The files of a group that say what it may use, and what they say.
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
            settings.push((name, text.trim().to_owned()));
        }
    }
    Ok(settings)
}

/// How such files end: limits, shares, and the processors and memory nodes of `cpuset`.
const SETTINGS: [&str; 7] =
    [".max", ".high", ".weight", ".latency", "cpuset.cpus", "cpuset.mems", "cpu.idle"];

fn is_default(text: &str) -> bool {
    matches!(text, "" | "max" | "max 100000" | "100" | "default 100" | "0")
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
