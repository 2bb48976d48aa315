//! The death of a generation, and which connections it had: those end with it, all others must not.
//!
//! A generation is frozen before it is killed. It then accepts nothing any more, while the kernel goes on filling its queues: so
//! what it had accepted is known exactly, and its queues are, if anything, fuller than in a sudden death.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use agent::host::sock_diag::Stage as Held;
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use tests::process::Handle;
use tests::stage::{LIMIT, Stage};
use tests::wait;

/// One generation's death. Clients are known by their port: all have the same address.
#[derive(Clone, Debug)]
pub(super) struct Death {
    /// From when on it accepted nothing.
    pub(super) stopped: Instant,
    /// When it was gone.
    pub(super) gone: Instant,
    /// When the next server was there, where nobody could take over.
    pub(super) served_again: Option<Instant>,
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
        let mut death = Self::foreseen(stage, port, &sockets(pids_of(cgroup)?))?;
        write(cgroup, "cgroup.kill")?;
        wait::until("the generation to be dead", LIMIT, || holds(cgroup, "populated 0"))?;
        death.gone = Instant::now();
        Ok(death)
    }

    /// Kills one process of those that serve a port.
    pub(super) fn of_process(stage: &Stage, pid: i32, port: u16) -> Result<Self> {
        let process = Handle::open(pid)?;
        // It is a child of another one, which has not been told of its end: the number is its own.
        kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
        wait::until("the process to stand still", LIMIT, || stands_still(pid))?;
        let mut death = Self::foreseen(stage, port, &sockets([pid]))?;
        process.kill()?;
        death.gone = Instant::now();
        Ok(death)
    }

    /// The death of who has these sockets and accepts nothing any more.
    fn foreseen(stage: &Stage, port: u16, held: &HashSet<u64>) -> Result<Self> {
        let mut death = Self::at(Instant::now());
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
        Ok(death)
    }

    fn at(stopped: Instant) -> Self {
        let (accepted, queued) = Default::default();
        Self { stopped, gone: stopped, served_again: None, accepted, queued }
    }

    /// A death that nobody but the dead one saw coming: it has written down its clients just before.
    pub(super) fn told(clients: &Path, now: Instant) -> Result<Self> {
        let text = fs::read_to_string(clients).context("read the last words of a generation")?;
        let accepted = serde_json::from_str(&text)?;
        let ago = fs::metadata(clients)?.modified()?.elapsed().unwrap_or_default();
        let at = now.checked_sub(ago).unwrap_or(now);
        let stopped = at.checked_sub(PUNCTUAL).unwrap_or(at);
        Ok(Self { gone: at + PUNCTUAL, accepted, ..Self::at(stopped) })
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

fn pids_of(cgroup: &Path) -> Result<Vec<i32>> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    text.lines().map(|pid| Ok(pid.parse()?)).collect()
}

/// Whether all threads of a process are stopped. One that is gone does not move either.
fn stands_still(pid: i32) -> Result<Option<()>> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Ok(Some(())) };
    let moves = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        !status.is_empty() && !status.lines().any(|line| line.starts_with("State:\tT"))
    };
    Ok((!threads.flatten().any(moves)).then_some(()))
}

/// The inode numbers of all sockets that these processes have.
fn sockets(pids: impl IntoIterator<Item = i32>) -> HashSet<u64> {
    let mut found = HashSet::new();
    for pid in pids {
        // One that was ending when all the others were frozen has no sockets any more.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|target| target.strip_prefix("socket:["));
            found.extend(inode.and_then(|inode| inode.strip_suffix(']')?.parse::<u64>().ok()));
        }
    }
    found
}

/// How exactly the time of a file is the time of a death on a busy machine.
const PUNCTUAL: Duration = Duration::from_millis(200);
