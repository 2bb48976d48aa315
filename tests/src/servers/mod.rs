//! Real servers, unmodified, each started by its own command.
//!
//! In generation N a server answers `/generation` (Redis: `CONFIG GET dbfilename`) with N, so that clients know who they
//! talk to, and `/stream` with four megabytes of lines that say the same.

mod commanded;
mod go;
mod hostile;
mod inline;
pub mod nginx;
mod node;
mod prefork;
mod python;
mod redis;
mod released;
mod script;

use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub use self::commanded::Commanded;
pub use self::go::Go;
pub use self::hostile::Hostile;
pub use self::inline::Inline;
pub use self::nginx::Nginx;
pub use self::node::Node;
pub use self::prefork::Prefork;
pub use self::python::Python;
pub use self::redis::Redis;
pub use self::released::{Keeps, Kind, Release, Released, Version};
pub use self::script::Script;
use agent_load::Plan;
use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::process::{Group, Handle};
use crate::wait;

/// A server program, in any number of generations.
pub trait Server: fmt::Debug {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// The port of every generation.
    fn port(&self) -> u16;

    /// The directory with its files.
    fn directory(&self) -> &Path;

    /// The command that starts a generation, for a first start and for `agent upgrade` alike.
    ///
    /// # Errors
    ///
    /// If the files that the command needs cannot be written.
    fn command(&self, generation: u32) -> Result<Vec<String>>;

    /// The clients that it can serve, at a rate that it can take.
    fn plan(&self) -> Plan;

    /// Where a generation that makes a daemon of itself writes its number; `None` if the command stays.
    fn pid_file(&self, _generation: u32) -> Option<PathBuf> {
        None
    }

    /// Where clients connect.
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port()))
    }

    /// Where a generation's output goes.
    fn log(&self, generation: u32) -> PathBuf {
        self.directory().join(format!("{}-{generation}.log", self.name()))
    }
}

/// Starts a generation inside a namespace and waits until it listens.
///
/// # Errors
///
/// If it cannot be started, ends, or does not listen in time; with its output.
pub fn start(server: &dyn Server, namespace: &Namespace, generation: u32) -> Result<Started> {
    let argv = server.command(generation)?;
    let [program, arguments @ ..] = argv.as_slice() else {
        bail!("{server:?} has an empty command")
    };
    let log = server.log(generation);
    let output = File::create(&log)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(server.directory()).process_group(0);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let child = namespace.spawn(&mut command)?;
    // From here on there is a guard, whatever fails.
    let mut started = Started { group: Group::Child(child), log };
    if let Some(pid_file) = server.pid_file(generation) {
        started.become_daemon(&pid_file).with_context(|| started.told())?;
    }
    let what = format!("{} to listen on port {}", server.name(), server.port());
    wait::until(&what, START, || {
        Ok((started.lives()? && namespace.listens(server.port())?).then_some(()))
    })
    .with_context(|| started.told())?;
    Ok(started)
}

/// A generation that was started here; ended with all its processes when dropped.
#[derive(Debug)]
pub struct Started {
    group: Group,
    log: PathBuf,
}

impl Started {
    /// The number of its main process.
    pub fn pid(&self) -> i32 {
        self.group.pid()
    }

    /// Ends all its processes as `kill -9` does.
    ///
    /// # Errors
    ///
    /// If they do not end.
    pub fn kill(&mut self) -> Result<()> {
        self.group.kill()
    }

    /// Whether its main process is there.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn lives(&mut self) -> Result<bool> {
        match &mut self.group {
            Group::Child(child) => Ok(child.try_wait()?.is_none()),
            Group::Daemon(handle) => Ok(!handle.ended_within(Duration::ZERO)?),
        }
    }

    /// Waits for the command that made a daemon of itself, and takes hold of the daemon.
    fn become_daemon(&mut self, pid_file: &Path) -> Result<()> {
        let Group::Child(child) = &mut self.group else { return Ok(()) };
        wait::until("the command to leave a daemon behind", START, || finished(child))?;
        let pid = wait::until("the daemon's number", START, || {
            Ok(fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok()))
        })?;
        self.group = Group::Daemon(Handle::open(pid)?);
        Ok(())
    }

    fn told(&self) -> String {
        format!("the server said: {}", fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("a server is left behind: {error:#}");
        }
        if std::thread::panicking() {
            eprintln!("{}", self.told());
        }
    }
}

fn finished(child: &mut Child) -> Result<Option<()>> {
    let Some(status) = child.try_wait()? else { return Ok(None) };
    ensure!(status.success(), "the command ended with {status}");
    Ok(Some(()))
}

/// A directory for a server's files, which its workers can read under another user.
pub fn directory(name: &str) -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix(&format!("agent-test-{name}-")).tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// The folder of one generation with the files `generation` and `stream`.
fn content(directory: &Path, generation: u32) -> Result<PathBuf> {
    let folder = directory.join(format!("gen-{generation}"));
    if !folder.is_dir() {
        let line = format!("{generation}\n");
        fs::create_dir(&folder)?;
        fs::write(folder.join("generation"), &line)?;
        let stream: Vec<u8> = line.into_bytes().into_iter().cycle().take(STREAM).collect();
        fs::write(folder.join("stream"), stream)?;
    }
    Ok(folder)
}

/// The pause of a kept connection between two requests.
const THINK: Duration = Duration::from_millis(20);
/// More than all buffers between a server and a client that does not read.
const STREAM: usize = 4 << 20;
const START: Duration = Duration::from_secs(30);
