//! How many files the agent may have open.

use std::io;

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Takes all that the hard limit of open files allows: the agent needs a descriptor for each process that it watches.
/// Generations do not inherit this: they are launched with the limits of the one that they replace.
pub(super) fn allow_all() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Whether a call failed because there is none left, for us or for the machine.
pub(super) fn are_exhausted(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].map(|it| Some(it.raw_os_error())).contains(&error.raw_os_error())
}
