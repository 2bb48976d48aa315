//! The directory that the agent's files are in: whoever can change it decides what they are.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use agent_api::{
    Problem, ProblemKind,
    trust::{refuse_directory_of_others, refuse_place_of_others},
};
use rustix::net::SocketAddrUnix;

use crate::{daemon::unwritten, host::room, places::Places};

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
    refuse_place_of_others(directory, place)?;
    room::takes_files(place).map_err(|error| {
        let message = format!("files cannot be made in `{}`", place.display());
        let problem = Problem::new(ProblemKind::Preflight, message).because(&error).on_one_line();
        problem.fix("let root write there, or name another one (`--runtime-dir`)")
    })
}

/// Makes a directory for us alone, with those above it. One that is there stays as it is: it may be in use for something else.
///
/// # Errors
///
/// When it cannot be made, or somebody else could change what is in there.
pub fn private_directory(path: &Path) -> Result<(), DirectoryError> {
    let failed = |source| DirectoryError::Create { path: path.to_owned(), source };
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    above.map_or(Ok(()), |it| private().recursive(true).create(it)).map_err(failed)?;
    match private().create(path) {
        // Whatever is taken away from who makes files (`umask`).
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(failed(error)),
    }
    refuse_directory_of_others(path).map_err(DirectoryError::Untrusted)
}

/// Why there is no directory for us alone.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refuses.
    #[error("create `{}`", path.display())]
    Create {
        /// Where.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// Somebody else could change what is in there.
    #[error("{0}")]
    Untrusted(Problem),
}

impl DirectoryError {
    /// Whether the file system is full.
    pub fn is_lack_of_room(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Create { source, .. } if full.contains(&source.kind()))
    }
}

impl From<DirectoryError> for Problem {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Untrusted(problem) => problem,
            DirectoryError::Create { path, source } => {
                unwritten(format!("create `{}`", path.display()), &path, &source)
            }
        }
    }
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    use super::*;

    #[test]
    fn a_directory_of_others_or_a_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let ours = root.path().join("ours");
        private_directory(&ours).unwrap();
        let link = root.path().join("link");
        symlink(&ours, &link).unwrap();
        assert!(Problem::from(private_directory(&link).unwrap_err()).message.contains("is a link"));
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let below = open.join("below");
        let problem = Problem::from(private_directory(&below).unwrap_err());
        assert!(problem.message.contains("can be changed by others"), "{problem:?}");
        let sticky = root.path().join("sticky");
        fs::create_dir(&sticky).unwrap();
        fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).unwrap();
        private_directory(&sticky.join("ours")).unwrap();
        let problem = Problem::from(private_directory(&sticky).unwrap_err());
        assert!(problem.message.contains("can be changed by others"), "{problem:?}");
        if rustix::process::geteuid().is_root() {
            chown(&ours, Some(1000), None).unwrap();
            let problem = Problem::from(private_directory(&ours).unwrap_err());
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
