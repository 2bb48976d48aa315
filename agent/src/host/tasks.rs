//! How many processes and threads may be started.

use std::{
    io,
    sync::{Arc, RwLock},
    thread,
};

/// Fewer than the agent needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "only {started} of the {NEEDED} processes and threads that the agent needs at least can be started: {why}"
)]
pub struct TooFewTasks {
    started: usize,
    why: io::Error,
}

impl TooFewTasks {
    /// What to do about it. The kernel says the same of both (EAGAIN).
    pub const FIX: &str = "let the agent have more memory (`ulimit -v`, `ulimit -d`, `MemoryMax=`) or more threads (`ulimit -u`, `pids.max`, `TasksMax=`)";
}

/// Starts as many threads as the agent needs, all at the same time, which end right after.
///
/// # Errors
///
/// When one of them cannot be started.
///
/// # Kernel
///
/// A process counts for as much as a thread (`pids_can_fork`, `RLIMIT_NPROC`), and some control groups that count them may be of
/// version 1: so it is tried and not read.
pub fn examine() -> Result<(), TooFewTasks> {
    // Each waits until all that there will be are there.
    let (gate, mut threads) = (Arc::new(RwLock::new(())), Vec::new());
    let closed = gate.write();
    let mut refused = None;
    while threads.len() < NEEDED && refused.is_none() {
        let gate = Arc::clone(&gate);
        let wait = move || drop(gate.read());
        match thread::Builder::new().stack_size(STACK).spawn(wait) {
            Ok(thread) => threads.push(thread),
            Err(error) => refused = Some(error),
        }
    }
    drop(closed);
    let started = threads.len();
    for thread in threads {
        // It does nothing that could panic.
        let _: thread::Result<()> = thread.join();
    }
    refused.map_or(Ok(()), |why| Err(TooFewTasks { started, why }))
}

/// The agent has six threads while it attaches, its launcher is a process, and a generation is one at least.
const NEEDED: usize = 8;

const STACK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_enough_where_tests_run() {
        super::examine().unwrap();
    }
}
