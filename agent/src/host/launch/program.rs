//! Finds the program that a command means, by the shell's rule.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// The absolute path of the program `name`: relative to `working_directory` if it has a slash, else
/// the first of that name which may be executed in the directories of `search_path`, the value of
/// `PATH`.
///
/// The answer is about our own mount namespace.
///
/// # Errors
///
/// The nearest miss: a file that is there but cannot be run says more than that no other was found.
pub fn resolve_program(
    name: &OsStr,
    working_directory: &Path,
    search_path: Option<&OsStr>,
) -> Result<PathBuf, ResolveError> {
    if is_path(name) {
        return runnable(working_directory.join(name));
    }
    let mut nearest_miss = None;
    for place in places_of_program(name, working_directory, search_path) {
        match runnable(place) {
            Ok(path) => return Ok(path),
            Err(ResolveError::NotFound { .. }) => {}
            Err(error) => nearest_miss = nearest_miss.or(Some(error)),
        }
    }
    Err(nearest_miss.unwrap_or_else(|| ResolveError::NotFound { name: name.to_owned() }))
}

/// Where the program `name` may be, by the same rule, and in this order.
pub fn places_of_program(
    name: &OsStr,
    working_directory: &Path,
    search_path: Option<&OsStr>,
) -> impl Iterator<Item = PathBuf> {
    let path = is_path(name).then(|| working_directory.join(name));
    let search = directories(search_path).filter(|_| !is_path(name));
    // An empty entry means the working directory, and so does joining it.
    path.into_iter().chain(search.map(move |it| working_directory.join(it).join(name)))
}

fn is_path(name: &OsStr) -> bool {
    name.as_bytes().contains(&b'/')
}

fn directories(search_path: Option<&OsStr>) -> impl Iterator<Item = &Path> {
    let list = search_path.map_or(DEFAULT_PATH, OsStrExt::as_bytes);
    list.split(|byte| *byte == b':').map(|directory| Path::new(OsStr::from_bytes(directory)))
}

fn runnable(path: PathBuf) -> Result<PathBuf, ResolveError> {
    let file = match fs::metadata(&path) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Err(ResolveError::NotFound { name: path.into() });
        }
        Err(source) => return Err(ResolveError::Unreadable { path, source }),
    };
    if file.is_dir() {
        return Err(ResolveError::Directory { path });
    }
    if !file.is_file() {
        return Err(ResolveError::NoFile { path });
    }
    if file.permissions().mode() & ANY_EXECUTE == 0 {
        return Err(ResolveError::NotExecutable { path });
    }
    Ok(path)
}

/// Why a command names no program. The operator can act on each.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// There is nothing of that name.
    #[error("program `{}` not found", name.display())]
    NotFound {
        /// The name or path that was looked for.
        name: OsString,
    },
    /// It is a directory.
    #[error("`{path}` is a directory, not a program")]
    Directory {
        /// Where it is.
        path: PathBuf,
    },
    /// It is a device, a pipe or a socket.
    #[error("`{path}` is not a regular file, and so no program")]
    NoFile {
        /// Where it is.
        path: PathBuf,
    },
    /// It is a file without permission to execute it.
    #[error("`{path}` is not executable")]
    NotExecutable {
        /// Where it is.
        path: PathBuf,
    },
    /// A directory on the way could not be searched.
    #[error("look for program `{path}`")]
    Unreadable {
        /// Where it would be.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Where shells look if there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Execution by the owner, the group or others.
const ANY_EXECUTE: u32 = 0o111;

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with_programs() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, mode) in [("server", 0o755), ("text", 0o644), ("late/text", 0o755)] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        directory
    }

    fn resolve(directory: &Path, name: &str, path: &str) -> Result<PathBuf, ResolveError> {
        resolve_program(OsStr::new(name), directory, Some(OsStr::new(path)))
    }

    #[test]
    fn a_slash_means_relative_to_the_working_directory() {
        let directory = directory_with_programs();
        let here = directory.path();
        assert_eq!(resolve(here, "./server", "/nowhere").unwrap(), here.join("./server"));
        assert!(matches!(resolve(here, "./none", "/nowhere"), Err(ResolveError::NotFound { .. })));
        assert!(matches!(
            resolve(here, "./server/x", "/nowhere"),
            Err(ResolveError::NotFound { .. })
        ));
        assert!(matches!(resolve(here, "./late", "/nowhere"), Err(ResolveError::Directory { .. })));
        assert!(matches!(
            resolve(here, "./text", "/nowhere"),
            Err(ResolveError::NotExecutable { .. })
        ));
    }

    #[test]
    fn a_name_is_searched_for_and_a_later_program_beats_an_earlier_miss() {
        let directory = directory_with_programs();
        let here = directory.path();
        assert!(matches!(resolve(here, "server", "/nowhere"), Err(ResolveError::NotFound { .. })));
        assert_eq!(resolve(here, "server", "/nowhere:").unwrap(), here.join("server"));
        assert_eq!(resolve(here, "text", ".:late").unwrap(), here.join("late/text"));
        assert!(matches!(resolve(here, "text", "."), Err(ResolveError::NotExecutable { .. })));
        assert!(resolve_program(OsStr::new("sh"), here, None).is_ok());
    }
}
