//! The files by which people find the agent: its control socket and its PID.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::{
        fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::Path,
};

use crate::{
    api::{Problem, ProblemKind},
    host::process::Pid,
};

/// Replaces the socket of an agent that was killed; the lock says that none lives.
pub(super) fn bind(path: &Path) -> Result<UnixListener, Problem> {
    let failed = |error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("bind `{}`", path.display())).because(&error)
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // The directory is private, so that nobody can connect before the mode is set.
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Says who the agent is. One that was killed has left room in the file, which is used again.
pub(super) fn write_pid_file(path: &Path) -> Result<(), Problem> {
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        // The line ends here, whatever is still behind it.
        let line = format!("{}\n", Pid::ours());
        file.write_all_at(line.as_bytes(), 0)?;
        file.set_len(line.len() as u64)
    };
    write().map_err(|error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("write `{}`: {error}", path.display()))
    })
}
