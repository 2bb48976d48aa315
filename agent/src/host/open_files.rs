//! How many files this process may have open.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// With fewer a start fails half-way, wherever it comes to the limit: with 80 it does, with 81 it did not (Linux 6.18).
const FEWEST: u64 = 128;

/// The hard limit is so low that no agent can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {most} files may be open, and the agent needs {FEWEST} to start")]
pub struct TooFew {
    most: u64,
}

impl TooFew {
    /// What to do about it.
    pub const FIX: &str =
        "`ulimit -n 512` as root with CAP_SYS_RESOURCE, or `LimitNOFILE=` in the agent's unit";
}

/// Takes all that the hard limit of open files allows: the agent needs a descriptor for each process that it watches.
/// Generations do not inherit this: they are launched with the limits of the one that they replace. Returns how many those are,
/// if they are limited.
///
/// # Errors
///
/// When those are too few to start with. They are allowed all the same.
pub fn allow_all() -> Result<Option<u64>, TooFew> {
    // Not by rustix, which panics where a filter refuses to say.
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    match most() {
        Some(most) if most < FEWEST => Err(TooFew { most }),
        most => Ok(most),
    }
}

/// How many the hard limit allows, if it is one and the kernel says so.
fn most() -> Option<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    (most != RLIM_INFINITY).then_some(most)
}
