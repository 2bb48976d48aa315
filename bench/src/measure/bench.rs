//! The server, the agent and the namespace that are measured.

use std::fs;
use std::io::{Read as _, Seek as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use super::cores::Cores;
use crate::interrupt::Interrupt;
use tests::agent::Pending;
use tests::servers::{self, Nginx, Server as _, Started};
use tests::stage::{LIMIT, Stage};
use tests::wait;

/// The port that is attached.
pub(super) const PORT: u16 = 8080;
/// A port of the same server that never is.
pub(super) const OTHER_PORT: u16 = 8081;

/// Everything that lives during a run. Dropped in this order: agent with all that it started, server, its files.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) stage: Stage,
    pub(super) cores: Cores,
    interrupt: Interrupt,
    daemon: Option<Pending>,
    _first: Started,
    pub(super) server: Nginx,
}

impl Bench {
    /// Moves this process into a namespace of its own, and starts the server there.
    pub(super) fn set(interrupt: Interrupt) -> Result<Self> {
        let stage = Stage::new()?;
        // All of us: an agent answers only to processes of its own namespace.
        stage.namespace.settle()?;
        let cores = Cores::find()?;
        let server = Nginx::new(PORT)?.first_also_on(OTHER_PORT);
        let first = cores.on_servers(|| servers::start(&server, &stage.namespace, 1))?;
        Ok(Self { stage, cores, interrupt, daemon: None, _first: first, server })
    }

    /// Starts the agent in the foreground, where it stays when nothing is attached.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        let agent = &self.stage.agent;
        let started = self.cores.on_servers(|| agent.start(&mut agent.command(&["daemon"])))?;
        self.daemon = Some(started);
        wait::until("the agent to answer", LIMIT, || {
            let answered = agent.daemon().is_some() && agent.run(&["status"])?.code == Some(0);
            Ok(answered.then_some(()))
        })
    }

    /// Fails once somebody wants the run to end. Called between any two values.
    pub(super) fn check(&self) -> Result<()> {
        self.interrupt.check()
    }

    /// Where the clients of the attached port connect.
    pub(super) fn attached(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where the clients of the other port connect.
    pub(super) fn direct(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], OTHER_PORT))
    }

    /// Runs a command of the agent on the attached port, which must succeed, and says how long that took from the start of
    /// the process to its end.
    pub(super) fn timed<T: DeserializeOwned>(&self, verb: &str) -> Result<(Duration, T)> {
        self.check()?;
        let port = PORT.to_string();
        answer(&mut self.stage.agent.command(&[verb, "--port", &port, "-o", "json"]))
            .with_context(|| format!("`agent {verb}`"))
    }

    /// The directory of the pinned maps or links, whose parent is named after the version of their layout.
    pub(super) fn pins(&self, kind: &str) -> Result<PathBuf> {
        let versions = fs::read_dir(self.stage.agent.pins())?;
        let version = versions.into_iter().next().context("the agent has pinned nothing")??;
        Ok(version.path().join(kind))
    }
}

/// Runs a command that must succeed, and says how long that took from the start of the process to its end.
pub(super) fn answer<T: DeserializeOwned>(command: &mut Command) -> Result<(Duration, T)> {
    // Files and not pipes: an agent that is started in the background may inherit them.
    let (mut out, mut error) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(error.try_clone()?);
    let begun = Instant::now();
    let status = command.status()?;
    let took = begun.elapsed();
    let mut said = String::new();
    if !status.success() {
        error.rewind()?;
        error.read_to_string(&mut said)?;
        bail!("{status}: {said}");
    }
    out.rewind()?;
    out.read_to_string(&mut said)?;
    let answer = serde_json::from_str(&said).with_context(|| format!("understand `{said}`"))?;
    Ok((took, answer))
}
