//! The death of a generation, and which connections it had: those end with it, all others must not.
//!
//! A generation is frozen before it is killed. It then accepts nothing any more, while the kernel goes on filling its queues: so
//! what it had accepted is known exactly, and its queues are, if anything, fuller than in a sudden death.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use ::agent::host::sock_diag::Stage as Held;
use anyhow::{Context as _, Result};

use crate::stage::{LIMIT, Stage};
use crate::wait;

/// One generation's death. Clients are known by their port: all have the same address.
#[derive(Clone, Debug)]
pub(super) struct Death {
    /// From when on it accepted nothing.
    pub(super) stopped: Instant,
    /// When it was gone.
    pub(super) gone: Instant,
    /// The clients of all connections that it had accepted and not closed.
    pub(super) accepted: HashSet<u16>,
    /// The clients of all connections of the service that waited to be accepted, by whomever.
    pub(super) queued: HashSet<u16>,
}

impl Death {
    /// Kills all processes of a cgroup, which serve a port.
    pub(super) fn kill(stage: &Stage, cgroup: &Path, port: u16) -> Result<Self> {
        write(cgroup, "cgroup.freeze")?;
        wait::until("the generation to stand still", LIMIT, || holds(cgroup, "frozen 1"))?;
        let stopped = Instant::now();
        let held = sockets(cgroup)?;
        let mut death =
            Self { stopped, gone: stopped, accepted: HashSet::new(), queued: HashSet::new() };
        for flow in stage.flows(port)? {
            let client = flow.remote.port();
            match (flow.stage(), flow.inode) {
                (Held::Accepted, Some(inode)) if held.contains(&inode.0) => {
                    death.accepted.insert(client);
                }
                (Held::Queued, _) => {
                    death.queued.insert(client);
                }
                (Held::Accepted | Held::Orphaned, _) => {}
            }
        }
        write(cgroup, "cgroup.kill")?;
        wait::until("the generation to be dead", LIMIT, || holds(cgroup, "populated 0"))?;
        death.gone = Instant::now();
        Ok(death)
    }

    /// A death that nobody but the dead one saw coming: it has written down its clients just before.
    pub(super) fn told(clients: &Path, now: Instant) -> Result<Self> {
        let text = fs::read_to_string(clients).context("read the last words of a generation")?;
        let accepted = serde_json::from_str(&text)?;
        let ago = fs::metadata(clients)?.modified()?.elapsed().unwrap_or_default();
        let at = now.checked_sub(ago).unwrap_or(now);
        let stopped = at.checked_sub(PUNCTUAL).unwrap_or(at);
        Ok(Self { stopped, gone: at + PUNCTUAL, accepted, queued: HashSet::new() })
    }
}

fn write(cgroup: &Path, file: &str) -> Result<()> {
    let path = cgroup.join(file);
    fs::write(&path, "1").with_context(|| format!("write `{}`", path.display()))
}

/// Whether the kernel says this of a cgroup. One that is gone is empty, and does not move.
fn holds(cgroup: &Path, state: &str) -> Result<Option<()>> {
    match fs::read_to_string(cgroup.join("cgroup.events")) {
        Ok(events) => Ok(events.lines().any(|line| line == state).then_some(())),
        Err(error) if is_gone(&error) => Ok(Some(())),
        Err(error) => Err(error.into()),
    }
}

/// A cgroup that is removed while one reads it says so in its own way.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// The inode numbers of all sockets that the processes of a cgroup have.
fn sockets(cgroup: &Path) -> Result<HashSet<u64>> {
    let mut found = HashSet::new();
    for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
        // One that was ending when all the others were frozen has no sockets any more.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|target| target.strip_prefix("socket:["));
            found.extend(inode.and_then(|inode| inode.strip_suffix(']')?.parse::<u64>().ok()));
        }
    }
    Ok(found)
}

/// How exactly the time of a file is the time of a death on a busy machine.
const PUNCTUAL: Duration = Duration::from_millis(200);
