//! The files by which people find the agent: its control socket and its PID; and how it opens those that it locks or writes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        fs::{FileExt as _, OpenOptionsExt as _},
        net::UnixListener,
    },
    path::Path,
};

use agent_api::{Problem, ProblemKind};
use rustix::{
    fs::{Mode, OFlags, fchmod},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to, listen,
        socket_with,
    },
};

use crate::host::process::Pid;

/// Replaces the socket of an agent that was killed; the lock says that none lives.
pub(super) fn bind(path: &Path) -> Result<UnixListener, Problem> {
    let failed = |error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("bind `{}`", path.display())).because(&error)
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let bound = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file gets the mode of the socket (`unix_bind_bsd`): there is no moment at which anybody else may connect.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind_to(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, BACKLOG)?;
        Ok(UnixListener::from(socket))
    };
    bound().map_err(|error: rustix::io::Errno| failed(error.into()))
}

/// As many as the standard library asks for.
const BACKLOG: i32 = 128;

/// Opens one of the agent's own files to write it, and makes it where it is not there. No link is followed, and no pipe waited for.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path)
}

/// Says who the agent is. One that was killed has left room in the file, which is used again.
pub(super) fn write_pid_file(path: &Path) -> Result<(), Problem> {
    let write = || {
        let file = open(path)?;
        // The line ends here, whatever is still behind it.
        let line = format!("{}\n", Pid::ours());
        file.write_all_at(line.as_bytes(), 0)?;
        file.set_len(line.len() as u64)
    };
    write().map_err(|error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("write `{}`: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (link, elsewhere) = (directory.path().join("link"), directory.path().join("elsewhere"));
        symlink(&elsewhere, &link).unwrap();
        write_pid_file(&link).unwrap_err();
        assert!(!elsewhere.exists());
    }

    #[test]
    fn the_socket_is_bound_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }
}
