//! Does something in a process of its own, which may end of it.

#![expect(unsafe_code, reason = "a copy of a process is safe only for who has one thread")]

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
};

use nix::{
    libc,
    sys::{
        memfd::{MFdFlags, memfd_create},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, dup2_stderr, fork},
};

use super::memory;

/// What was told, and how who told it ended.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) bytes: Vec<u8>,
    pub(crate) status: WaitStatus,
    /// What it said of memory that it asked for in vain, when it gave up for that.
    pub(crate) gave_up: Option<String>,
}

/// Runs this in a copy of our process, which needs neither a file to be executed from nor a thread, and returns when that has ended.
/// The caller has one thread.
///
/// # Errors
///
/// When there can be no such process; nothing was run then.
pub(crate) fn aside(work: impl FnOnce(File)) -> io::Result<Told> {
    let (reader, writer) = io::pipe()?;
    // Where there is none, it says what it has to say by itself.
    let errors = memfd_create("errors", MFdFlags::MFD_CLOEXEC).map(File::from).ok();
    // SAFETY: there is no other thread that could hold a lock at this moment, and that the copy would miss.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            // The same holds where it cannot take its place.
            let _: Option<Result<(), _>> = errors.as_ref().map(dup2_stderr);
            memory::allocate_in_one_place();
            work(File::from(std::os::fd::OwnedFd::from(writer)));
            // SAFETY: it ends this process, and runs nothing of what was registered by the one that it is a copy of.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut bytes = Vec::new();
            let read = File::from(std::os::fd::OwnedFd::from(reader)).read_to_end(&mut bytes);
            let status = waitpid(child, None)?;
            let said = errors.map(said_to).unwrap_or_default();
            let mut lines = said.lines();
            let gave_up = lines.find(|line| line.starts_with("memory allocation of"));
            let gave_up = gave_up.map(ToOwned::to_owned);
            if gave_up.is_none() {
                io::stderr().write_all(said.as_bytes()).ok();
            }
            read.map(|_length| Told { bytes, status, gave_up })
        }
    }
}

/// All that was written to a file that both halves share.
fn said_to(mut errors: File) -> String {
    let mut said = Vec::new();
    // Of what cannot be read nothing is told.
    let _: io::Result<usize> = errors.rewind().and_then(|()| errors.read_to_end(&mut said));
    String::from_utf8_lossy(&said).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_before_the_end_is_known() {
        use std::io::Write as _;
        let told = aside(|mut out| {
            out.write_all(b"half").unwrap();
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        let told = told.unwrap();
        assert_eq!(told.bytes, b"half");
        assert!(matches!(told.status, WaitStatus::Signaled(..)), "{told:?}");
    }
}
