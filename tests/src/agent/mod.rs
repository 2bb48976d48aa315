//! The agent as its users have it: a command line, run inside a namespace, with directories of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agent_api::{ServiceView, Services};
use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

mod command;

pub use self::command::{Output, Pending, upgrade};
use crate::namespace::Namespace;
use crate::process::{Handle, children};
use crate::wait;

/// An agent that shares nothing with any other; ended and removed with all its traces when dropped.
#[derive(Debug)]
pub struct Agent {
    namespace: Namespace,
    binary: PathBuf,
    /// Builds that were installed before.
    binaries: Vec<PathBuf>,
    runtime: TempDir,
    pins: PathBuf,
    cgroup: PathBuf,
    configuration: NamedTempFile,
}

/// What every command is told.
const CONFIGURATION: &str = include_str!("../../agent.toml");

impl Agent {
    /// Prepares an agent for a namespace. Nothing runs before the first command.
    ///
    /// # Errors
    ///
    /// If the binary has not been built or there is no cgroup v2 tree.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let binary = std::env::var_os("AGENT_BINARY");
        let binary = binary.map_or_else(|| PathBuf::from(BINARY), PathBuf::from);
        Self::with_binary(namespace, &binary)
    }

    /// Prepares an agent of another build.
    ///
    /// # Errors
    ///
    /// As [`Agent::new`].
    pub fn with_binary(namespace: &Namespace, binary: &Path) -> Result<Self> {
        let binary = fs::canonicalize(binary)
            .with_context(|| format!("find the agent's binary `{}`", binary.display()))?;
        let name =
            format!("agent-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let cgroups = cgroup_mount(&mounts).context("find a mounted cgroup v2 tree")?;
        Ok(Self {
            namespace: namespace.clone(),
            binary,
            binaries: Vec::new(),
            // In memory, as `/run` usually is: the state file is replaced at every step.
            runtime: tempfile::Builder::new().prefix("agent-test-run-").tempdir_in("/dev/shm")?,
            pins: Path::new("/sys/fs/bpf").join(&name),
            cgroup: Path::new(cgroups).join(&name),
            configuration: configuration()?,
        })
    }

    /// From now on commands are of another build; what runs goes on.
    pub fn install(&mut self, binary: &Path) {
        self.binaries.push(std::mem::replace(&mut self.binary, binary.to_owned()));
    }

    /// Takes charge of a port.
    ///
    /// # Errors
    ///
    /// If the command could not be run; its own failure is in the output.
    pub fn attach(&self, port: u16) -> Result<Output> {
        self.on_port("attach", port)
    }

    /// Starts the next generation and steers to it.
    ///
    /// # Errors
    ///
    /// If the command could not be run; its own failure is in the output.
    pub fn upgrade(&self, port: u16, argv: &[String]) -> Result<Output> {
        self.run(&upgrade(port, &[], argv))
    }

    /// Starts the next generation with options, and waits until it takes all new connections.
    ///
    /// # Errors
    ///
    /// If the command could not be run; its own failure is in the output.
    pub fn switch(&self, port: u16, options: &[&str], argv: &[String]) -> Result<Output> {
        let mut all = vec!["--wait", "switched"];
        all.extend(options);
        self.run(&upgrade(port, &all, argv))
    }

    /// Steers back to the generation before.
    ///
    /// # Errors
    ///
    /// If the command could not be run; its own failure is in the output.
    pub fn undo(&self, port: u16) -> Result<Output> {
        self.on_port("undo", port)
    }

    /// Leaves a port to its server.
    ///
    /// # Errors
    ///
    /// If the command could not be run; its own failure is in the output.
    pub fn detach(&self, port: u16) -> Result<Output> {
        self.on_port("detach", port)
    }

    /// What the agent knows.
    ///
    /// # Errors
    ///
    /// If the command failed or did not answer in JSON.
    pub fn status(&self) -> Result<Value> {
        self.run(&["status", "-o", "json"])?.success()?.json()
    }

    /// What the agent knows of the service on a port.
    ///
    /// # Errors
    ///
    /// If the command failed or did not answer in JSON.
    pub fn service(&self, port: u16) -> Result<ServiceView> {
        let port = port.to_string();
        let answer = self.run(&["status", "--port", &port, "-o", "json"])?.success()?;
        let mut answer: Services = serde_json::from_str(&answer.stdout)?;
        answer.services.pop().context("the answer has no service")
    }

    /// Runs any command to its end.
    ///
    /// # Errors
    ///
    /// If it could not be run, or did not end within two minutes.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        self.start(&mut self.command(arguments))?.finish()
    }

    /// Starts a command of this agent, which the caller may have changed, and does not wait for its end.
    ///
    /// # Errors
    ///
    /// If it could not be started.
    pub fn start(&self, command: &mut Command) -> Result<Pending> {
        // Files and not pipes: the daemon may inherit them, and a pipe would then not end with the command.
        let answers = tempfile::tempdir()?;
        let (stdout, stderr) = (answers.path().join("stdout"), answers.path().join("stderr"));
        command.stdin(Stdio::null()).stdout(File::create(stdout)?).stderr(File::create(stderr)?);
        let child = self.namespace.spawn(command)?;
        Ok(Pending::new(format!("{command:?}"), child, answers))
    }

    /// A command of this agent, to be run inside its namespace.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--runtime-dir").arg(self.runtime.path());
        command.arg("--pin-dir").arg(&self.pins).arg("--cgroup").arg(&self.cgroup);
        command.env("AGENT_CONFIG", self.configuration());
        command.args(arguments);
        command
    }

    /// The running daemon, proven to be this agent's binary; `None` if there is none.
    pub fn daemon(&self) -> Option<Handle> {
        let pid =
            fs::read_to_string(self.runtime.path().join("agent.pid")).ok()?.trim().parse().ok()?;
        let handle = Handle::open(pid).ok()?;
        let program = handle.program().to_string_lossy();
        // A rebuilt binary leaves its running predecessor with this mark.
        let program = Path::new(program.trim_end_matches(" (deleted)"));
        let ours = self.binaries.iter().chain([&self.binary]).any(|binary| binary == program);
        ours.then_some(handle)
    }

    /// The processes of the agent itself: the daemon and its launcher. None if it does not run.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell its children.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(daemon) = self.daemon() else { return Ok(Vec::new()) };
        let mut own = children(daemon.pid())?;
        own.push(daemon.pid());
        Ok(own)
    }

    /// Ends the daemon as `kill -9` does.
    ///
    /// # Errors
    ///
    /// If none runs, or it does not end.
    pub fn kill_daemon(&self) -> Result<()> {
        self.daemon().context("no agent runs")?.kill()
    }

    /// Starts the daemon, as a service manager would, and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it does not; with what it said.
    pub fn start_daemon(&self) -> Result<()> {
        self.start_daemon_without(&[])
    }

    /// The same, with these kernel programs not attached.
    ///
    /// # Errors
    ///
    /// As [`Self::start_daemon`].
    pub fn start_daemon_without(&self, programs: &[&str]) -> Result<()> {
        let mut command = self.command(&["daemon"]);
        self.start_daemon_by(command.env("AGENT_WITHOUT", programs.join(",")))
    }

    /// The same, by a command that becomes the daemon.
    ///
    /// # Errors
    ///
    /// As [`Self::start_daemon`].
    pub fn start_daemon_by(&self, command: &mut Command) -> Result<()> {
        let mut daemon = self.start(command)?;
        let answers = || match self.run(&["status"])?.success() {
            Ok(_) => Ok(Some(())),
            Err(error) if daemon.has_ended()? => Err(error),
            Err(_) => Ok(None),
        };
        let answered = wait::until("the agent to answer", LIMIT, answers);
        answered.or_else(|error| Err(error.context(daemon.said()?.join("\n"))))
    }

    /// The program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The directory of the control socket, the log and the daemon's number.
    pub fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    /// How many bytes the state takes, without the room that its file has beyond.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn state_length(&self) -> Result<u64> {
        let text = fs::read(self.runtime().join("state.json"))?;
        Ok(u64::try_from(text.trim_ascii_end().len())?)
    }

    /// The directory of the pinned kernel state.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The configuration file of every command.
    pub fn configuration(&self) -> &Path {
        self.configuration.path()
    }

    /// Where the maps of the kernel programs are pinned.
    pub fn maps(&self) -> PathBuf {
        self.links().with_file_name("maps")
    }

    /// Where the attachments of the kernel programs are pinned.
    pub fn links(&self) -> PathBuf {
        self.pins.join(format!("v{}/links", agent_ebpf::SCHEMA))
    }

    /// The cgroup of all generations that the agent starts.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The cgroup of one of them.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell the number of the agent's network namespace.
    pub fn cgroup_of(&self, service: &str, generation: u32) -> Result<PathBuf> {
        Ok(self.cgroup.join(format!("{service}.{generation}@{}", self.namespace.inode()?)))
    }

    /// The cgroup that keeps the one above from being removed by agents of other namespaces.
    ///
    /// # Errors
    ///
    /// As [`Self::cgroup_of`].
    pub fn keeper(&self) -> Result<PathBuf> {
        Ok(self.cgroup.join(format!("@{}", self.namespace.inode()?)))
    }

    /// From now on the agent, which must not run, has the cgroup of another one, as default options have it.
    pub fn share_cgroup(&mut self, other: &Self) {
        self.cgroup.clone_from(&other.cgroup);
    }

    fn on_port(&self, verb: &str, port: u16) -> Result<Output> {
        self.run(&[verb, "--port", &port.to_string(), "-o", "json"])
    }

    fn clean(&self) -> Result<()> {
        if let Some(daemon) = self.daemon() {
            daemon.kill()?;
        }
        remove_cgroup(&self.cgroup)?;
        match fs::remove_dir_all(&self.pins) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error)
                .with_context(|| format!("remove the pins below `{}`", self.pins.display())),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.runtime.path().join("agent.log")).unwrap_or_default();
            eprintln!("the agent's log:\n{log}");
        }
        if let Err(error) = self.clean() {
            eprintln!("the agent left something behind: {error:#}");
        }
    }
}

/// A file of root's, which everybody can read: whose the one in the source tree is nobody knows.
fn configuration() -> Result<NamedTempFile> {
    let everybody = fs::Permissions::from_mode(0o644);
    let mut made = tempfile::Builder::new();
    let made = made.prefix("agent-test-config-").permissions(everybody).tempfile_in("/dev/shm")?;
    fs::write(made.path(), CONFIGURATION)?;
    Ok(made)
}

/// The mount point of the cgroup v2 tree, which may be one beside v1.
fn cgroup_mount(mounts: &str) -> Option<&str> {
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find_map(|fields| match fields.as_slice() {
        [_, path, "cgroup2", ..] => Some(*path),
        _ => None,
    })
}

/// Ends all processes of a cgroup and those below it, then removes it.
pub fn remove_cgroup(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    fs::write(path.join("cgroup.kill"), "1")
        .with_context(|| format!("end the processes of `{}`", path.display()))?;
    wait::until("the cgroup to be empty", LIMIT, || {
        let events = fs::read_to_string(path.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "populated 0").then_some(()))
    })?;
    remove_cgroup_directory(path)
}

/// Directories only: the files of a cgroup belong to the kernel.
fn remove_cgroup_directory(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup_directory(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("remove the cgroup `{}`", path.display()))
}

static NEXT: AtomicU32 = AtomicU32::new(0);
const BINARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/debug/agent");
const LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_tree_beside_the_old_ones_is_found() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup_mount(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup_mount("proc /proc proc rw 0 0\n"), None);
    }
}
