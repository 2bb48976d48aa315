//! What it looks like when the agent may open no more files.

use std::io;

use rustix::io::Errno;

/// Whether a call failed because there is none left, for us or for the machine.
pub(in crate::daemon) fn are_exhausted(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].map(|it| Some(it.raw_os_error())).contains(&error.raw_os_error())
}
