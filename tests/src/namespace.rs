//! A network namespace that has no name and lives as long as somebody holds its descriptor.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;

use crate::process::{self, Handle};
use crate::wait;

/// A network namespace of its own, with loopback and [`ADDRESS`].
///
/// There is no name under `/run/netns`, so nothing is left behind when the test is killed: the kernel removes the
/// namespace with its last process and descriptor.
#[derive(Clone, Debug)]
pub struct Namespace {
    descriptor: Arc<OwnedFd>,
}

/// An address beside loopback's own, for servers that listen on a particular one.
pub const ADDRESS: &str = "10.77.0.1";

impl Namespace {
    /// Makes a namespace.
    ///
    /// # Errors
    ///
    /// Without the right to do so, or without the `ip` command.
    pub fn new() -> Result<Self> {
        let descriptor = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("make a network namespace (this needs root)")?;
            ip(&["link", "set", "lo", "up"])?;
            ip(&["address", "add", &format!("{ADDRESS}/24"), "dev", "lo"])?;
            Ok(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))
        })?;
        Ok(Self { descriptor: Arc::new(descriptor) })
    }

    /// The one that the calling thread is in.
    ///
    /// # Errors
    ///
    /// If the kernel does not give it.
    pub fn current() -> Result<Self> {
        let descriptor = OwnedFd::from(File::open("/proc/thread-self/ns/net")?);
        Ok(Self { descriptor: Arc::new(descriptor) })
    }

    /// The one that a process is in.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let descriptor = File::open(&path).with_context(|| format!("open `{path}`"))?;
        Ok(Self { descriptor: Arc::new(descriptor.into()) })
    }

    /// The namespace, for those who enter it by themselves.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.descriptor)
    }

    /// The number that the kernel knows it by.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn inode(&self) -> Result<u64> {
        Ok(nix::sys::stat::fstat(&self.descriptor)?.st_ino)
    }

    /// Does something on a thread inside the namespace.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered, or what was to be done fails.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            setns(&self.descriptor, CloneFlags::CLONE_NEWNET)
                .context("enter the network namespace")?;
            act()
        })
    }

    /// Moves the calling thread into the namespace for good, and with it all threads and processes that it makes. Called
    /// on the first thread, it moves the whole process as others see it.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered.
    pub fn settle(&self) -> Result<()> {
        setns(&self.descriptor, CloneFlags::CLONE_NEWNET).context("enter the network namespace")
    }

    /// The processes that live in the namespace now, without those that ended and were not waited for.
    ///
    /// # Errors
    ///
    /// If the kernel does not list them.
    pub fn processes(&self) -> Result<BTreeSet<i32>> {
        let own = fstat(&*self.descriptor)?;
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may end meanwhile.
            let Ok(file) = std::fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
            if (file.dev(), file.ino()) == (own.st_dev, own.st_ino) && process::runs(pid) {
                found.insert(pid);
            }
        }
        Ok(found)
    }

    /// Kills every process in the namespace, and waits for their end.
    ///
    /// # Errors
    ///
    /// If one does not end.
    pub fn clear(&self) -> Result<()> {
        self.kill(|_| true)
    }

    /// The same for those of one user.
    ///
    /// # Errors
    ///
    /// If one does not end.
    pub fn clear_of(&self, user: u32) -> Result<()> {
        // One that is gone is nobody's.
        self.kill(|pid| process::user(pid).is_ok_and(|it| it == user))
    }

    fn kill(&self, concerns: impl Fn(i32) -> bool) -> Result<()> {
        wait::until("the processes of the namespace to end", CLEARING, || {
            let left: Vec<_> = self.processes()?.into_iter().filter(|pid| concerns(*pid)).collect();
            // What has ended meanwhile is as good; what is born meanwhile is found in the next round.
            // Nobody is waited for here: of thousands, each would cost a turn of the scheduler.
            left.iter().filter_map(|pid| Handle::open(*pid).ok()).for_each(|it| it.send_kill());
            Ok(left.is_empty().then_some(()))
        })
    }

    /// Starts a command inside the namespace: a child belongs to the namespaces of the thread that makes it.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.enter(|| command.spawn().with_context(|| format!("start {command:?}")))
    }

    /// Runs a command to its end inside the namespace.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        self.enter(|| command.output().with_context(|| format!("run {command:?}")))
    }

    /// Sets one of the namespace's own kernel parameters, such as `ipv4/tcp_migrate_req`.
    ///
    /// # Errors
    ///
    /// If there is none of that name or it refuses the value.
    pub fn set(&self, parameter: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{parameter}");
        self.enter(|| std::fs::write(&path, value).with_context(|| format!("set `{path}`")))
    }

    /// Whether somebody listens on a TCP port, found without connecting: a probe would be a client that nobody counts.
    ///
    /// # Errors
    ///
    /// If the kernel's tables cannot be read.
    pub fn listens(&self, port: u16) -> Result<bool> {
        let tables = self.enter(|| {
            let table =
                |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            Ok([table("tcp")?, table("tcp6")?])
        })?;
        Ok(tables
            .iter()
            .flat_map(|table| table.lines().skip(1))
            .any(|line| is_listener(line, port)))
    }
}

/// Whether a line of the kernel's table of TCP sockets is a listener on a port.
fn is_listener(line: &str, port: u16) -> bool {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next().and_then(|local| local.rsplit_once(':'));
    let bound = local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    bound == Some(port) && fields.nth(1) == Some(LISTEN)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run the `ip` command")?;
    ensure!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Threads are moved between namespaces, and never used for anything else afterwards.
fn on_a_thread<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(act).join())
        .map_err(|_panic| anyhow!("panic on the thread in the namespace"))?
}

/// The state `TCP_LISTEN` in the kernel's table.
const LISTEN: &str = "0A";
const CLEARING: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection_on_its_port() {
        let listener =
            "  0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1";
        let connection =
            "  1: 0100007F:1F90 0100007F:A0B2 01 00000000:00000000 00:00000000 00000000 0 0 2 1";
        assert!(is_listener(listener, 8080));
        assert!(!is_listener(listener, 80));
        assert!(!is_listener(connection, 8080));
    }
}
