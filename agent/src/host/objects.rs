//! What the agent has the kernel make for it to wait with and to keep something in: made once, to see whether it can be had.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use rustix::{
    event::{
        EventfdFlags,
        epoll::{self, CreateFlags},
        eventfd,
    },
    fs::{MemfdFlags, inotify, memfd_create},
    io::Errno,
};

/// Something that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be had")]
pub struct NoObject {
    what: &'static str,
    #[source]
    source: io::Error,
}

impl NoObject {
    /// What to do about it, where that is not the same for whatever has run out.
    pub fn fix(&self) -> Option<String> {
        let setting = match (self.what, Errno::from_io_error(&self.source)?) {
            (INSTANCE, Errno::MFILE) => "fs.inotify.max_user_instances",
            (WATCH, Errno::NOSPC) => "fs.inotify.max_user_watches",
            _ => return None,
        };
        Some(raise(setting))
    }
}

/// Tries all of them, at the same time.
///
/// # Errors
///
/// With the first that cannot be had.
pub fn examine() -> Result<(), NoObject> {
    let failed = |what| move |error: Errno| NoObject { what, source: error.into() };
    let _waiting = waiting()?;
    // One for what is removed, and one for what servers write.
    let instance = || inotify::init(inotify::CreateFlags::CLOEXEC).map_err(failed(INSTANCE));
    let (instance, _other) = (instance()?, instance()?);
    for place in WATCHED.iter().map(Path::new).filter(|place| place.is_dir()) {
        inotify::add_watch(&instance, place, inotify::WatchFlags::DELETE_SELF)
            .map_err(failed(WATCH))?;
    }
    memfd_create("agent", MemfdFlags::CLOEXEC).map_err(failed("a file in memory (memfd)"))?;
    Ok(())
}

/// A runtime of one thread. The library that it is of panics where it cannot have what it waits with.
///
/// # Errors
///
/// When it cannot have that.
pub fn runtime() -> Result<tokio::runtime::Runtime, NoObject> {
    drop(waiting()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| NoObject { what: "a runtime", source })
}

/// What everybody takes who waits.
fn waiting() -> Result<[OwnedFd; 5], NoObject> {
    let failed = |what| move |source| NoObject { what, source };
    let (one, other) = UnixStream::pair().map_err(failed("a pair of Unix sockets"))?;
    let copy = one.try_clone().map_err(failed("a second descriptor of a socket"))?;
    let epoll = epoll::create(CreateFlags::CLOEXEC);
    let epoll = epoll.map_err(|error| failed("an epoll instance")(error.into()))?;
    let counter = eventfd(0, EventfdFlags::CLOEXEC);
    let counter = counter.map_err(|error| failed("an eventfd")(error.into()))?;
    Ok([one.into(), other.into(), copy.into(), epoll, counter])
}

/// Why a watch was refused. What has run out is none of the file system's, as the same answer to who writes says.
pub fn unwatched(error: Errno) -> io::Error {
    match error {
        Errno::NOSPC => io::Error::other(format!(
            "there are as many inotify watches as there may be: {}",
            raise("fs.inotify.max_user_watches")
        )),
        other => other.into(),
    }
}

/// Twice as much as there may be now, as a command.
fn raise(setting: &str) -> String {
    let path = format!("/proc/sys/{}", setting.replace('.', "/"));
    let now = fs::read_to_string(path).ok().and_then(|it| it.trim().parse().ok());
    let enough = now.map_or(USUAL, |now: u64| now.saturating_mul(2).max(USUAL));
    let now = now.map_or_else(|| "unknown".to_owned(), |now| now.to_string());
    format!("`sysctl {setting}={enough}` (it is {now} for each user), or end what has so many")
}

const INSTANCE: &str = "an inotify instance";
const WATCH: &str = "an inotify watch";

/// As many as the agent watches at least, wherever they are.
const WATCHED: [&str; 8] = ["/", "/proc", "/sys", "/dev", "/run", "/tmp", "/usr", "/etc"];

/// What a kernel allows of instances, which is fewer than of watches.
const USUAL: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_can_be_had_where_tests_run() {
        examine().unwrap();
        drop(runtime().unwrap());
    }

    #[test]
    fn the_setting_that_limits_something_is_named() {
        let fix = |what, errno: Errno| NoObject { what, source: errno.into() }.fix();
        let named = |fix: Option<String>, setting: &str| fix.is_some_and(|it| it.contains(setting));
        assert!(named(fix(INSTANCE, Errno::MFILE), "sysctl fs.inotify.max_user_instances="));
        assert!(named(fix(WATCH, Errno::NOSPC), "sysctl fs.inotify.max_user_watches="));
        assert_eq!(fix(INSTANCE, Errno::NFILE), None);
    }
}
