//! The directory that the agent's files are in: whoever can change it decides what they are.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::net::SocketAddrUnix;

use crate::{
    api::{Problem, ProblemKind},
    host::capabilities::are_of_the_machine,
    places::Places,
};

/// What keeps an agent from having its files in the runtime directory. Nothing is made.
///
/// # Errors
///
/// When it is something else, somebody else could change what is in there, or its sockets would have too long a path.
pub fn examine_directory(places: &Places) -> Result<(), Problem> {
    let directory = &places.runtime_dir;
    let preflight =
        |message: String, fix: &str| Err(Problem::new(ProblemKind::Preflight, message).fix(fix));
    if SocketAddrUnix::new(places.socket()).is_err() {
        let message = format!(
            "the path of the control socket in the runtime directory `{}` is longer than 107 bytes, which is the most",
            directory.display()
        );
        return preflight(message, "name a shorter one (`--runtime-dir`)");
    }
    let Some(place) = directory.ancestors().find(|place| place.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    if !place.is_dir() {
        let message =
            format!("`{}` is no directory, and the agent needs one there", place.display());
        return preflight(message, "remove it, or name another one (`--runtime-dir`)");
    }
    refuse_place_of_others(directory, place)
}

/// Makes a directory for us alone, with those above it. One that is there stays as it is: it may be in use for something else.
///
/// # Errors
///
/// When it cannot be made, or somebody else could change what is in there.
pub fn private_directory(path: &Path) -> Result<(), Problem> {
    let failed = |error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("create `{}`", path.display())).because(&error)
    };
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    above.map_or(Ok(()), |it| private().recursive(true).create(it)).map_err(failed)?;
    match private().create(path) {
        // Whatever is taken away from who makes files (`umask`).
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(failed(error)),
    }
    refuse_directory_of_others(path)
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Refuses a directory that others can change, or one above it: they decide where a path in there leads.
///
/// # Errors
///
/// When it cannot be examined, or somebody else could change what is in there.
pub fn refuse_directory_of_others(path: &Path) -> Result<(), Problem> {
    refuse_place_of_others(path, path)
}

/// Whoever can change a directory, or one above it, decides where a path in there leads. `named` may be yet to be made below it.
fn refuse_place_of_others(named: &Path, given: &Path) -> Result<(), Problem> {
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
            above != path && above != real && known.uid() == NOBODY && !are_of_the_machine();
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn a_directory_of_others_or_a_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let ours = root.path().join("ours");
        private_directory(&ours).unwrap();
        let link = root.path().join("link");
        symlink(&ours, &link).unwrap();
        assert!(private_directory(&link).unwrap_err().message.contains("is a link"));
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let below = open.join("below");
        let problem = private_directory(&below).unwrap_err();
        assert!(problem.message.contains("can be changed by others"), "{problem:?}");
        let sticky = root.path().join("sticky");
        fs::create_dir(&sticky).unwrap();
        fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).unwrap();
        private_directory(&sticky.join("ours")).unwrap();
        let problem = private_directory(&sticky).unwrap_err();
        assert!(problem.message.contains("can be changed by others"), "{problem:?}");
        if rustix::process::geteuid().is_root() {
            chown(&ours, Some(1000), None).unwrap();
            let problem = private_directory(&ours).unwrap_err();
            assert!(problem.message.contains("belongs to uid 1000"), "{problem:?}");
        }
    }

    #[test]
    fn a_directory_that_was_there_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        for (given, accepted) in [(0o755, true), (0o1777, false), (0o770, false)] {
            let old = root.path().join(format!("{given:o}"));
            fs::create_dir(&old).unwrap();
            fs::set_permissions(&old, fs::Permissions::from_mode(given)).unwrap();
            assert_eq!(private_directory(&old).is_ok(), accepted, "{given:o}");
            assert_eq!(mode(&old), given);
        }
        let new = root.path().join("above/new");
        private_directory(&new).unwrap();
        assert_eq!((mode(&new), mode(new.parent().unwrap())), (0o700, 0o700));
    }
}
