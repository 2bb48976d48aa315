//! Which directory may be believed to have the agent's socket in it.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use agent_terms::users;

use crate::{Problem, ProblemKind};

/// Refuses a directory that others can change, or one above it: they decide where a path in there leads.
///
/// # Errors
///
/// When it cannot be examined, or somebody else could change what is in there.
pub fn refuse_directory_of_others(path: &Path) -> Result<(), Problem> {
    refuse_place_of_others(path, path)
}

/// The same of a directory above the one that is named, which may be yet to be made.
///
/// # Errors
///
/// As [`refuse_directory_of_others`].
pub fn refuse_place_of_others(named: &Path, given: &Path) -> Result<(), Problem> {
    /// Others may write, and, where it is not sticky, rename what is not theirs.
    const OPEN: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    const NOBODY: u32 = 65534;
    let ours = rustix::process::geteuid().as_raw();
    let path = std::path::absolute(given).unwrap_or_else(|_| given.to_owned());
    // Where links on the way lead counts too.
    let real = fs::canonicalize(&path).map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("examine `{}`", path.display())).because(&error)
    })?;
    for above in path.ancestors().chain(real.ancestors()) {
        let known = fs::symlink_metadata(above).map_err(|error| {
            Problem::new(ProblemKind::Failed, format!("examine `{}`", above.display()))
                .because(&error)
        })?;
        // In a user namespace it stands for all who are nobody in there: they cannot change it from there.
        let is_outside =
            above != path && above != real && known.uid() == NOBODY && !users::are_of_the_machine();
        let is_trusted = is_outside || [0, ours].contains(&known.uid());
        // In the directory itself new names are enough: links and sockets where the agent is about to have its own.
        let is_itself = named == given && (above == path || above == real);
        let is_safe = known.mode() & STICKY != 0 && !is_itself;
        let is_open = known.mode() & OPEN != 0 && !is_safe && !known.is_symlink();
        if is_trusted && !is_open && !(known.is_symlink() && above == path) {
            continue;
        }
        let why = match (is_trusted, known.is_symlink()) {
            (false, _) => format!("belongs to uid {}", known.uid()),
            (true, true) => "is a link".to_owned(),
            (true, false) => "can be changed by others".to_owned(),
        };
        let message = format!(
            "the runtime directory `{}` cannot be trusted: `{}` {why}",
            named.display(),
            above.display()
        );
        return Err(Problem::new(ProblemKind::Preflight, message)
            .fix("name one that only root can change (`--runtime-dir`)"));
    }
    Ok(())
}
