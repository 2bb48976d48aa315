//! The server, the agent and the clients of one demo.

use std::fs::{self, File};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use agent_api::{GenerationView, Services};
use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::screen::{Moment, Screen};
use super::traffic::Traffic;
use crate::interrupt::Interrupt;
use tests::agent::Agent;
use tests::namespace::Namespace;
use tests::servers::{self, Nginx, Server as _, Started};
use tests::wait;

/// The port of the demo.
pub(super) const PORT: u16 = 8080;

/// Everything that lives during a demo. Dropped in this order: clients, agent with all that it started, server, namespace.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) screen: &'a Screen,
    interrupt: &'a Interrupt,
    pub(super) traffic: Option<Traffic>,
    pub(super) agent: Agent,
    pub(super) first: Option<Started>,
    pub(super) server: Nginx,
    pub(super) namespace: Namespace,
}

impl<'a> Stage<'a> {
    pub(super) fn set(screen: &'a Screen, interrupt: &'a Interrupt) -> Result<Self> {
        let namespace = Namespace::new()?;
        Ok(Self {
            screen,
            interrupt,
            traffic: None,
            agent: Agent::new(&namespace)?,
            first: None,
            server: Nginx::new(PORT)?,
            namespace,
        })
    }

    /// Starts the server as its users do, and lets the clients come.
    pub(super) fn open(&mut self, generations: u32) -> Result<()> {
        self.screen.command(&self.typed(&self.server.command(1)?));
        self.first = Some(servers::start(&self.server, &self.namespace, 1)?);
        self.traffic = Some(Traffic::begin(&self.server, &self.namespace, generations)?);
        Ok(())
    }

    /// Runs a command of the agent to its end, which must come with this exit code; meanwhile `meanwhile` is called now and
    /// then, with what the agent knows.
    pub(super) fn agent(
        &mut self,
        arguments: &[&str],
        expected: i32,
        mut meanwhile: impl FnMut(&mut Self, &Services) -> Result<()>,
    ) -> Result<()> {
        let words: Vec<String> =
            ["agent"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        self.screen.command(&self.typed(&words));
        let mut running = Running::start(self, arguments)?;
        let mut shown = None;
        let status = loop {
            self.interrupt.check()?;
            if let Some(status) = running.child.try_wait()? {
                break status;
            }
            // Before the first attach and after the last detach there is nobody to ask: the command's own end says
            // whether that is as it should be.
            if shown.is_none_or(|at: Instant| at.elapsed() > FRAME)
                && self.agent.daemon().is_some()
                && let Ok(services) = self.look()
            {
                meanwhile(self, &services)?;
                shown = Some(Instant::now());
            }
            wait::sleep(STEP);
        };
        if shown.is_some() && self.agent.daemon().is_some() {
            // As above.
            let _: Result<Services> = self.look();
        }
        self.screen.keep_table();
        let said = running.said()?;
        self.screen.output(&said);
        match status.code() {
            Some(code) if code == expected => Ok(()),
            _ => bail!("`agent {}` ended with {status} instead of {expected}", arguments.join(" ")),
        }
    }

    /// Lets a time pass, and shows it.
    pub(super) fn watch(&mut self, duration: Duration) -> Result<()> {
        let begun = Instant::now();
        self.watch_until("a time to pass", |_| begun.elapsed() >= duration)
    }

    /// Shows what happens until it is as it should be.
    pub(super) fn watch_until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Services) -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.interrupt.check()?;
            if done(&self.look()?) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} in vain: {what}");
            }
            wait::sleep(FRAME);
        }
    }

    /// Asks the agent, and shows its answer.
    pub(super) fn look(&self) -> Result<Services> {
        let services: Services = serde_json::from_value(self.agent.status()?)
            .context("understand the agent's status")?;
        let failures = self.traffic.as_ref().map_or(0, Traffic::failures);
        self.screen.moment(&Moment { services: &services, failures });
        Ok(services)
    }

    /// The clients, who come with the server.
    pub(super) fn clients(&mut self) -> Result<&mut Traffic> {
        self.traffic.as_mut().context("the server has not been started")
    }

    /// A command as one would type it in the directory of the server.
    pub(super) fn typed(&self, words: &[String]) -> String {
        let directory = self.server.directory().display().to_string();
        let word = |word: &String| {
            let word = match word.strip_prefix(&directory) {
                Some("") => ".",
                Some(below) => below.trim_start_matches('/'),
                None => word,
            };
            match word.contains([' ', ';', '\'']) {
                true => format!("'{word}'"),
                false => word.to_owned(),
            }
        };
        words.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

/// The generation that takes new connections.
pub(super) fn serving(services: &Services) -> Option<&GenerationView> {
    generations(services).find(|generation| generation.takes_new_connections)
}

/// All generations that live.
pub(super) fn generations(services: &Services) -> impl Iterator<Item = &GenerationView> {
    services.services.iter().flat_map(|service| &service.generations)
}

/// A command that runs. Killed when dropped: what it waits for does not end with it.
struct Running {
    child: Child,
    answers: TempDir,
}

impl Running {
    fn start(stage: &Stage<'_>, arguments: &[&str]) -> Result<Self> {
        // A file and not a pipe: the daemon may inherit it, and a pipe would then not end with the command.
        let answers = tempfile::tempdir()?;
        let out = File::create(answers.path().join(SAID))?;
        let mut command = stage.agent.command(arguments);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Ok(Self { child: stage.namespace.spawn(&mut command)?, answers })
    }

    fn said(&self) -> Result<String> {
        let said = fs::read(self.answers.path().join(SAID))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has ended, which is what is wanted.
        self.child.kill().ok();
        let _: std::io::Result<ExitStatus> = self.child.wait();
    }
}

const SAID: &str = "said";
const STEP: Duration = Duration::from_millis(5);
const FRAME: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);
