//! Does something in a process of its own, which may end of it.

#![expect(unsafe_code, reason = "a copy of a process is safe only for who has one thread")]

use std::{
    fs::File,
    io::{self, Read as _},
};

use nix::{
    libc,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};

use super::memory;

/// What was told, and how who told it ended.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) bytes: Vec<u8>,
    pub(crate) status: WaitStatus,
}

/// Runs this in a copy of our process, which needs neither a file to be executed from nor a thread, and returns when that has ended.
/// The caller has one thread.
///
/// # Errors
///
/// When there can be no such process; nothing was run then.
pub(crate) fn aside(work: impl FnOnce(File)) -> io::Result<Told> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: there is no other thread that could hold a lock at this moment, and that the copy would miss.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
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
            read.map(|_length| Told { bytes, status })
        }
    }
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
