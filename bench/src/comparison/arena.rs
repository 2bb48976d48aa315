//! A contender in a network namespace, a directory and a cgroup of its own.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::contender::{Contender, folder};
use crate::measure::cores::Cores;
use tests::agent::remove_cgroup;
use tests::servers;
use tests::stage::Stage;

/// What a script is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    /// Start the same server without anything that an upgrade needs.
    Alone,
    Upgrade,
    Undo,
}

/// Everything that a contender has; ended and removed when dropped, in this order.
#[derive(Debug)]
pub(super) struct Arena {
    cgroup: Cgroup,
    pub(super) stage: Stage,
    directory: TempDir,
    cores: Cores,
    script: PathBuf,
}

impl Arena {
    /// Starts version 1, as the contender (`Start`) or `Alone`.
    pub(super) fn open(contender: &Contender, how: Verb, cores: &Cores) -> Result<Self> {
        let stage = Stage::new()?;
        let cgroup = Cgroup::make(stage.agent.cgroup())?;
        let directory = servers::directory("bench")?;
        let script = contender.script();
        let arena = Self { cgroup, stage, directory, cores: cores.clone(), script };
        arena.act(how, 1)?;
        Ok(arena)
    }

    /// Has the script do something on the server's core, and says how long that took.
    pub(super) fn act(&self, verb: Verb, version: u32) -> Result<Duration> {
        let output = self.directory.path().join("script.log");
        let log = File::create(&output)?;
        let mut command = self.command(verb, version)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let begun = Instant::now();
        let mut child = self.cores.on_servers(|| self.stage.namespace.spawn(&mut command))?;
        let status = child.wait()?;
        let took = begun.elapsed();
        if !status.success() {
            let said = fs::read_to_string(&output).unwrap_or_default();
            bail!("{verb:?} {version}: {status}: {}", said.trim());
        }
        Ok(took)
    }

    /// Where clients connect.
    pub(super) fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], PORT))
    }

    fn command(&self, verb: Verb, version: u32) -> Result<Command> {
        let verb = match verb {
            Verb::Start => "start",
            Verb::Alone => "alone",
            Verb::Upgrade => "upgrade",
            Verb::Undo => "undo",
        };
        let mut command = Command::new("sh");
        // The shell moves itself, because only the first process can be sure to be in before the next one is made.
        command.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec timeout 60 sh \"$@\""]);
        command.arg(&self.cgroup.path).arg(&self.script).arg(verb).arg(version.to_string());
        command.current_dir(self.directory.path());
        let agent = &self.stage.agent;
        command.env("PATH", path(agent.binary())?).env("BENCH", folder());
        command.env("SERVERS", concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers"));
        command.env("AGENT_RUNTIME_DIR", agent.runtime()).env("AGENT_PIN_DIR", agent.pins());
        command.env("AGENT_CGROUP", agent.cgroup());
        Ok(command)
    }
}

/// What of a contender's needs is not there.
pub(super) fn missing(contender: &Contender, agent: &Path) -> Result<Vec<String>> {
    let path = path(agent)?;
    let there = |program: &str| env::split_paths(&path).any(|at| at.join(program).is_file());
    Ok(contender.needs.iter().filter(|program| !there(program)).cloned().collect())
}

/// Where scripts find programs: the agent that is measured, what was built for us, and what the machine has.
fn path(agent: &Path) -> Result<OsString> {
    let tools = env::var_os("AGENT_TEST_TOOLS").map_or_else(|| TOOLS.into(), PathBuf::from);
    let ours = [agent.parent().context("the agent has no folder")?.to_owned(), tools.join("bin")];
    let machine = env::var_os("PATH").unwrap_or_default();
    // Servers live in folders that users do not search.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    Ok(env::join_paths(ours.into_iter().chain(env::split_paths(&machine)).chain(system))?)
}

/// The cgroup of all that a script starts.
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Beside the one of the arena's agent, whose name is nobody else's.
    fn make(agents: &Path) -> Result<Self> {
        let name = agents.file_name().and_then(|name| name.to_str()).context("a cgroup's name")?;
        let path = agents.with_file_name(format!("{name}-bench"));
        ensure!(!path.exists(), "`{}` is there already", path.display());
        fs::create_dir(&path).with_context(|| format!("make `{}`", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove_cgroup(&self.path) {
            eprintln!("a contender left something behind: {error:#}");
        }
    }
}

/// The port of every contender.
const PORT: u16 = 8080;
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools");
