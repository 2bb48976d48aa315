//! Which file a command starts.
//!
//! The one who types it means what it would mean in this shell, so it is looked up here and not by the agent.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use agent_api::{Problem, ProblemKind};

use crate::host::launch::{ResolveError, resolve_program};

/// The absolute path of a program, as a shell with this working directory and `PATH` would find it.
pub(super) fn resolve(
    program: &str,
    directory: &Path,
    search: Option<&OsStr>,
) -> Result<PathBuf, Problem> {
    resolve_program(OsStr::new(program), directory, search).map_err(|error| {
        let problem = Problem::caused(ProblemKind::Preflight, &error);
        match error {
            ResolveError::NotFound { .. } if program.contains('/') => {
                problem.fix("check the path: it is looked up from where this command is run")
            }
            ResolveError::NotFound { .. } => problem.fix(format!(
                "check PATH (`{}`), or give the path, for example `./{program}`",
                search.unwrap_or_default().display()
            )),
            ResolveError::Directory { .. } => problem.fix("name a program in it"),
            ResolveError::NoFile { .. } => problem.fix("name a program"),
            ResolveError::NotExecutable { path } => {
                problem.fix(format!("chmod +x {}", path.display()))
            }
            ResolveError::Unreadable { .. } => problem,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_cannot_be_started_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text"), "").unwrap();
        let fix = |program: &str| {
            let search = Some(OsStr::new("/nonexistent"));
            let problem = resolve(program, folder.path(), search).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Preflight);
            problem.fix.unwrap()
        };
        assert!(fix("./absent").contains("from where this command is run"));
        assert!(fix("absent").contains("PATH (`/nonexistent`)"));
        assert!(fix("/").contains("in it"));
        assert!(fix("./text").starts_with("chmod +x /"));
        assert_eq!(fix("/dev/null"), "name a program");
    }
}
