//! Which file a command starts.
//!
//! The one who types it means what it would mean in this shell, so it is looked up here and not by the agent.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::api::{Problem, ProblemKind};

/// The absolute path of a program, as a shell with this working directory and `PATH` would find it.
///
/// # Errors
///
/// Says apart that there is no such program, that it is a directory, and that it cannot be executed.
pub(super) fn resolve(
    program: &str,
    directory: &Path,
    search: Option<OsString>,
) -> Result<PathBuf, Problem> {
    if program.is_empty() {
        return Err(Problem::new(ProblemKind::Usage, "the command has an empty name"));
    }
    if program.contains('/') {
        let path = directory.join(program);
        return check(&path).map(|()| path).map_err(|error| error.problem(program));
    }
    let search = search.unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let mut refusal = Refusal::Missing;
    for folder in env::split_paths(&search) {
        // An empty entry is the working directory, as ever.
        let path = directory.join(folder).join(program);
        match check(&path) {
            Ok(()) => return Ok(path),
            Err(Refusal::Missing) => {}
            Err(found) => refusal = found,
        }
    }
    match refusal {
        Refusal::Missing => Err(not_in_path(program, &search)),
        refusal => Err(refusal.problem(program)),
    }
}

/// What is wrong with a file.
#[derive(Debug)]
enum Refusal {
    Missing,
    Directory(PathBuf),
    NotAFile(PathBuf),
    NotExecutable(PathBuf),
    Unreachable(PathBuf, io::Error),
}

fn check(path: &Path) -> Result<(), Refusal> {
    let owned = || path.to_owned();
    match fs::metadata(path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Err(Refusal::Missing)
        }
        Err(error) => Err(Refusal::Unreachable(owned(), error)),
        Ok(found) if found.is_dir() => Err(Refusal::Directory(owned())),
        Ok(found) if !found.is_file() => Err(Refusal::NotAFile(owned())),
        // Whose permission counts is decided when it is launched, as its user.
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Err(Refusal::NotExecutable(owned()))
        }
        Ok(_) => Ok(()),
    }
}

impl Refusal {
    fn problem(self, program: &str) -> Problem {
        let refused = |message: String| Problem::new(ProblemKind::Preflight, message);
        match self {
            Self::Missing => refused(format!("there is no program `{program}`"))
                .fix("check the path: it is looked up from where this command is run"),
            Self::Directory(path) => {
                refused(format!("the program `{}` is a directory", path.display()))
                    .fix("name a file in it")
            }
            Self::NotAFile(path) => {
                refused(format!("the program `{}` is not a regular file", path.display()))
            }
            Self::NotExecutable(path) => {
                refused(format!("the program `{}` is not executable", path.display()))
                    .fix(format!("chmod +x {}", path.display()))
            }
            Self::Unreachable(path, error) => Problem {
                causes: vec![error.to_string()],
                ..refused(format!("cannot look at the program `{}`", path.display()))
            },
        }
    }
}

fn not_in_path(program: &str, search: &OsStr) -> Problem {
    let message = format!("there is no program `{program}` in PATH (`{}`)", search.display());
    Problem::new(ProblemKind::Preflight, message)
        .fix(format!("give its path, for example `./{program}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, u32)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("bin/directory")).unwrap();
            for (name, mode) in files {
                let path = folder.path().join(name);
                fs::write(&path, "").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self(folder)
        }

        fn resolve(&self, program: &str) -> Result<PathBuf, Problem> {
            let here = self.0.path();
            let search = env::join_paths([Path::new("/nonexistent"), &here.join("bin")]).unwrap();
            resolve(program, here, Some(search))
        }

        fn complaint(&self, program: &str) -> String {
            let problem = self.resolve(program).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Preflight);
            problem.message
        }
    }

    #[test]
    fn a_path_is_looked_up_from_here_and_a_name_in_the_path() {
        let folder = Folder::with(&[("server", 0o755), ("bin/server", 0o700)]);
        let here = folder.0.path();
        assert_eq!(folder.resolve("./server"), Ok(here.join("./server")));
        assert_eq!(folder.resolve("bin/server"), Ok(here.join("bin/server")));
        assert_eq!(folder.resolve("server"), Ok(here.join("bin/server")));
        assert_eq!(folder.resolve("/bin/sh"), Ok("/bin/sh".into()));
    }

    #[test]
    fn what_cannot_be_started_is_refused_for_what_it_is() {
        let folder = Folder::with(&[("bin/text", 0o644)]);
        assert!(folder.complaint("./absent").contains("there is no program `./absent`"));
        assert!(folder.complaint("bin/text/below").contains("there is no program"));
        assert!(folder.complaint("absent").contains("in PATH"));
        assert!(folder.complaint("./bin").contains("is a directory"));
        assert!(folder.complaint("text").contains("is not executable"));
        assert!(folder.complaint("directory").contains("is a directory"));
        assert!(folder.complaint("/dev/null").contains("is not a regular file"));
    }
}
