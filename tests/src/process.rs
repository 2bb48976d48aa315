//! Ending the processes that were started here, and no others.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open, pidfd_send_signal};

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Debug)]
pub struct Handle {
    pid: i32,
    descriptor: OwnedFd,
    program: PathBuf,
}

impl Handle {
    /// Takes hold of a living process.
    ///
    /// # Errors
    ///
    /// If there is none of that number.
    pub fn open(pid: i32) -> Result<Self> {
        let number =
            rustix::process::Pid::from_raw(pid).with_context(|| format!("process number {pid}"))?;
        let descriptor = pidfd_open(number, PidfdFlags::empty())
            .with_context(|| format!("take hold of process {pid}"))?;
        let program = fs::read_link(format!("/proc/{pid}/exe"))
            .with_context(|| format!("find the program of process {pid}"))?;
        Ok(Self { pid, descriptor, program })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The program it runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it has ended, waiting for that at most so long.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn ended_within(&self, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
            match poll(&mut [PollFd::new(&self.descriptor, PollFlags::IN)], Some(&left)) {
                // By the end of some other child, say.
                Err(Errno::INTR) => {}
                ended => return Ok(ended? == 1),
            }
        }
    }

    /// How long it has had a processor.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let (_, behind_name) = stat.rsplit_once(')').context("a name")?;
        let times = behind_name.split_ascii_whitespace().skip(11).take(2);
        let ticks = times.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        // `USER_HZ`, whatever the kernel counts in.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Kills it, and does not wait for its end.
    pub fn send_kill(&self) {
        // It may have ended, which is as good.
        pidfd_send_signal(&self.descriptor, rustix::process::Signal::KILL).ok();
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn kill(&self) -> Result<()> {
        if self.ended_within(Duration::ZERO)? {
            return Ok(());
        }
        self.send_kill();
        if !self.ended_within(LIMIT)? {
            bail!("process {} did not end when killed", self.pid);
        }
        Ok(())
    }
}

/// What a server has started as: a child in a group of its own, or a daemon that leads one.
#[derive(Debug)]
pub enum Group {
    /// The leader is our child. As long as nobody has waited for it, its number cannot be given away.
    Child(Child),
    /// The leader has left us.
    Daemon(Handle),
}

impl Group {
    /// The number of the leader, and so of the group.
    pub fn pid(&self) -> i32 {
        match self {
            Self::Child(child) => i32::try_from(child.id()).unwrap_or(i32::MAX),
            Self::Daemon(handle) => handle.pid(),
        }
    }

    /// Kills every process of the group and waits for the end of its leader.
    ///
    /// # Errors
    ///
    /// If the leader does not end.
    pub fn kill(&mut self) -> Result<()> {
        let pid = self.pid();
        match self {
            Self::Child(child) => {
                if child.try_wait()?.is_none() {
                    killpg(Pid::from_raw(pid), Signal::SIGKILL)?;
                    child.wait()?;
                }
            }
            Self::Daemon(handle) => {
                if handle.ended_within(Duration::ZERO)? {
                    kill_orphans(handle)?;
                } else {
                    killpg(Pid::from_raw(pid), Signal::SIGKILL)?;
                    if !handle.ended_within(LIMIT)? {
                        bail!("process {pid} did not end when killed");
                    }
                }
            }
        }
        Ok(())
    }
}

/// The children of a process, in the order in which they were born.
///
/// # Errors
///
/// If the process is gone.
pub fn children(pid: i32) -> Result<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    text.split_whitespace().map(|number| Ok(number.parse()?)).collect()
}

/// The effective user of a process.
///
/// # Errors
///
/// If the process is gone.
pub fn user(pid: i32) -> Result<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:")).context("no user")?;
    Ok(line.split_whitespace().nth(1).context("no effective user")?.parse()?)
}

/// A duplicate of the only socket that a process has.
///
/// # Errors
///
/// If it has none, or is gone.
pub fn listener_of(pid: i32) -> Result<OwnedFd> {
    let number = rustix::process::Pid::from_raw(pid).context("a process number")?;
    let process = pidfd_open(number, PidfdFlags::empty())?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // It may be closed by now.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.to_string_lossy().starts_with("socket:") {
            let number = entry.file_name().to_string_lossy().parse()?;
            return Ok(pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?);
        }
    }
    bail!("process {pid} has no socket")
}

/// Whether a process runs. One that has ended and was not waited for does not.
pub fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

/// Kills the members that a dead leader left behind, known by their group and their program.
fn kill_orphans(leader: &Handle) -> Result<()> {
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let group = nix::unistd::getpgid(Some(Pid::from_raw(pid)));
        if group == Ok(Pid::from_raw(leader.pid()))
            && let Ok(member) = Handle::open(pid)
            && member.program() == leader.program()
        {
            member.kill()?;
        }
    }
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(10);
