//! What the agent is asked to do, and how that may end.

use std::fs::{self, OpenOptions};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use agent::daemon::Step;
use agent_api::{GenerationState, History, ServiceState, ServiceView};
use agent_rollout::Outcome;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::{Agent, Output, Pending, upgrade};
use tests::process::Handle;
use tests::servers::{Script, Server, Started};
use tests::stage::{self, Stage};
use tests::wait;

use crate::cell::{Cell, Fault};

pub(crate) const PORT: u16 = 8080;

/// Something that takes many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// An agent goes on where another one was killed.
    Start,
    /// The same, with the pins gone.
    Rebuild,
    Attach,
    Upgrade,
    Undo,
    /// The old generation's last flow ends.
    Drain,
    /// The same, with an old generation that does not end by itself.
    Kill,
    /// A draining generation dies with connections in its queue.
    Death,
    Detach,
    /// The same for the server that was found running, whose port is shared only because of us.
    DetachFound,
}

impl Operation {
    pub(crate) const ALL: [Self; 10] = [
        Self::Start,
        Self::Rebuild,
        Self::Attach,
        Self::Upgrade,
        Self::Undo,
        Self::Drain,
        Self::Kill,
        Self::Death,
        Self::Detach,
        Self::DetachFound,
    ];
}

/// Everything that is there before the operation.
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) server: Script,
    old: Script,
    operation: Operation,
    first: Option<Started>,
    pinned: Option<TcpStream>,
    /// By an agent that builds the maps anew.
    taken_over: Option<TcpStream>,
    queued: Vec<TcpStream>,
    waiting: Option<Pending>,
    starting: Option<Child>,
    /// Of the server that a detach hands back: nobody knows it then.
    handed_back: Vec<Handle>,
    /// Where servers write down what they are told.
    notes: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn before(operation: Operation) -> Result<Self> {
        let stage = Stage::new()?;
        let mut scene = Self {
            stage,
            server: Script::new(PORT)?,
            old: Script::new(PORT)?,
            operation,
            first: None,
            pinned: None,
            taken_over: None,
            queued: Vec::new(),
            waiting: None,
            starting: None,
            handed_back: Vec::new(),
            notes: tempfile::tempdir()?,
        };
        let told = scene.notes.path().join("told").display().to_string();
        scene.old = match operation {
            Operation::Kill => Script::with(PORT, &["--note-term", &told])?,
            Operation::Death => Script::with(PORT, &["--deaf"])?,
            _ => scene.old,
        };
        // A name that the old one might take along.
        let pid_file = scene.old.directory().join("server.pid").display().to_string();
        scene.server = Script::with(PORT, &["--pid-file", &pid_file])?;
        scene.first = Some(scene.stage.start(&scene.old, 1)?);
        start_agent(&scene.stage)?;
        if operation != Operation::Attach {
            scene.stage.agent.attach(PORT)?.success()?;
        }
        scene.lead_up()?;
        Ok(scene)
    }

    fn lead_up(&mut self) -> Result<()> {
        match self.operation {
            Operation::Start | Operation::Rebuild => {
                if self.operation == Operation::Rebuild {
                    self.taken_over = Some(self.stage.connect(self.server.address())?);
                }
                self.stage.agent.kill_daemon()?;
                if self.operation == Operation::Rebuild {
                    std::fs::remove_dir_all(self.stage.agent.pins())?;
                }
            }
            Operation::Attach => self.pinned = Some(self.stage.connect(self.server.address())?),
            Operation::Upgrade | Operation::DetachFound => {}
            Operation::Undo => {
                self.pinned = Some(self.stage.connect(self.server.address())?);
                self.stage.switch(&self.server, 2, &[])?;
            }
            Operation::Drain | Operation::Kill => {
                self.pinned = Some(self.stage.connect(self.server.address())?);
                self.waiting = Some(self.upgrade(&["--stop-timeout", "200ms"])?);
                self.until_first_is(GenerationState::Draining)?;
            }
            Operation::Death => {
                let address = self.server.address();
                self.queued =
                    (0..20).map(|_| self.stage.connect(address)).collect::<Result<_>>()?;
                self.stage.switch(&self.server, 2, &["--queue-timeout", "1m"])?;
            }
            Operation::Detach => {
                self.stage.agent.upgrade(PORT, &self.server.command(2)?)?.success()?;
                self.handed_back = self.servers()?;
            }
        }
        Ok(())
    }

    fn upgrade(&self, options: &[&str]) -> Result<Pending> {
        let words = upgrade(PORT, options, &self.server.command(2)?);
        self.stage.agent.start(&mut self.stage.agent.command(&words))
    }

    fn until_first_is(&self, state: GenerationState) -> Result<()> {
        let is = |service: &ServiceView| {
            stage::generations(service).get(&1).is_some_and(|it| it.state == state)
        };
        let said = || format!("{:?}", self.waiting.as_ref().map(Pending::said));
        self.stage.until("generation 1 to be so far", PORT, is).map(drop).with_context(said)
    }

    /// Sets the operation going.
    pub(crate) fn begin(&mut self) -> Result<Option<Pending>> {
        let agent = &self.stage.agent;
        let port = PORT.to_string();
        let verb = |verb: &str| agent.start(&mut agent.command(&[verb, "--port", &port]));
        Ok(match self.operation {
            Operation::Start | Operation::Rebuild => {
                self.starting = Some(daemon(&self.stage)?);
                None
            }
            Operation::Attach => Some(verb("attach")?),
            Operation::Upgrade => Some(self.upgrade(&[])?),
            Operation::Undo => Some(verb("undo")?),
            Operation::Drain | Operation::Kill => {
                self.pinned = None;
                self.waiting.take()
            }
            Operation::Death => {
                let first = self.first.as_ref().context("generation 1 was started")?;
                kill(Pid::from_raw(first.pid()), Signal::SIGKILL)?;
                None
            }
            Operation::Detach | Operation::DetachFound => Some(verb("detach")?),
        })
    }

    /// A connection of generation 1 has outlived the command, and is not waited for any longer.
    pub(crate) fn let_go(&mut self) -> Result<()> {
        let Some(mut pinned) = self.pinned.take() else { return Ok(()) };
        ensure!(stage::ask(&mut pinned)? == 1, "a connection of generation 1 went astray");
        Ok(())
    }

    /// The operation has been done, or undone, and nothing else.
    pub(crate) fn check(&mut self, output: Option<&Output>, cell: Option<&Cell>) -> Result<()> {
        let code = output.and_then(|it| it.code);
        let expected: &[u32] = match (self.operation, code) {
            (Operation::Start | Operation::Rebuild, _) | (Operation::Attach, Some(0 | 1)) => &[1],
            (Operation::Upgrade, Some(0)) => &[2],
            (Operation::Upgrade, Some(1 | 5)) => &[1],
            (Operation::Undo, Some(0)) => &[1],
            (Operation::Undo, Some(1)) => &[1, 2],
            (Operation::Drain | Operation::Kill, Some(0)) | (Operation::Death, _) => &[2],
            (Operation::Detach, Some(0 | 1)) => &[2],
            (Operation::DetachFound, Some(0 | 1)) => &[1],
            _ => anyhow::bail!("it ended so: {output:?}"),
        };
        let failed = cell.is_some_and(|cell| cell.fault == Fault::Fail);
        ensure!(code != Some(1) || failed, "what the agent's death interrupts goes on");
        self.check_start()?;
        if let Some(mut taken_over) = self.taken_over.take() {
            ensure!(stage::ask(&mut taken_over)? == 1, "a connection without a tag went astray");
        }
        for stream in &mut self.queued {
            ensure!(stage::ask(stream)? == 2, "a queued connection went astray");
        }
        if self.operation == Operation::Death {
            self.check_moved()?;
        }
        self.queued.clear();
        let address = self.server.address();
        let serving = self.stage.generation(address)?;
        ensure!(expected.contains(&serving), "generation {serving} serves: {output:?}");
        if self.is_attached()? {
            let service = self.stage.until_steady(PORT)?;
            ensure!(service.state == ServiceState::Steady);
            let left = service.generations[0].number.0;
            ensure!(left == serving, "generation {left} is left, {serving} served");
        }
        Ok(())
    }

    /// A start that could not go on has ended with the code for that.
    fn check_start(&mut self) -> Result<()> {
        let ended = self.starting.as_mut().map(Child::try_wait).transpose()?.flatten();
        let code = ended.and_then(|ended| ended.code());
        ensure!(matches!(code, None | Some(1)), "the agent's start ended with {code:?}");
        Ok(())
    }

    /// What was moved is generation 2's now, and counts for nobody else. Whether generation 1 is seen to die, or to have nothing
    /// left first, is the same to everybody.
    fn check_moved(&self) -> Result<()> {
        let queued = self.queued.len() as u64;
        let are_its = |service: &ServiceView| {
            stage::generations(service).get(&2).is_some_and(|it| it.open_flows >= queued)
        };
        self.stage.until("the moved connections to count as its own", PORT, are_its)?;
        self.stage.until_steady(PORT)?;
        let port = PORT.to_string();
        let words = ["history", "--port", &port, "-o", "json"];
        let history: History =
            serde_json::from_str(&self.stage.agent.run(&words)?.success()?.stdout)?;
        let upgrade = history.rollouts.last().context("there was an upgrade")?;
        match upgrade.outcome() {
            Some(Outcome::OldDied { flows: 0 } | Outcome::Completed) => Ok(()),
            other => anyhow::bail!("it ended so: {other:?}"),
        }
    }

    /// How often generation 1 was told to end: once, but where the agent was killed before it had written that down. Such a
    /// server still listens, which is the mark of one that was not told.
    pub(crate) fn check_told(&self, cell: &Cell) -> Result<()> {
        if self.operation != Operation::Kill {
            return Ok(());
        }
        let told = fs::read_to_string(self.notes.path().join("told"))?.lines().count();
        let may_be_unknown = matches!(
            (cell.fault, cell.place.step),
            (Fault::KillAfter, Step::Signal) | (Fault::KillBefore, Step::WriteState)
        );
        ensure!(told == 1 || (told == 2 && may_be_unknown), "it was told {told} times");
        Ok(())
    }

    fn is_attached(&self) -> Result<bool> {
        if self.stage.agent.daemon().is_none() {
            return Ok(false);
        }
        let status = self.stage.agent.status()?;
        Ok(status["services"].as_array().is_some_and(|services| !services.is_empty()))
    }

    /// Hands the port back and ends the agent: nothing of it may be left, and the server that served goes on. Returns what
    /// launched servers are to be ended when nobody is served any more.
    pub(crate) fn end(&mut self) -> Result<Vec<Handle>> {
        let agent = &self.stage.agent;
        let address = self.server.address();
        let serving = self.stage.generation(address)?;
        let mut servers = std::mem::take(&mut self.handed_back);
        if self.is_attached()? {
            servers.append(&mut self.servers()?);
            agent.detach(PORT)?.success()?;
        }
        let is_gone = || Ok(agent.daemon().is_none().then_some(()));
        if let Some(daemon) = agent.daemon() {
            // One that was started again after the last service was detached waits to be told.
            kill(Pid::from_raw(daemon.pid()), Signal::SIGTERM)?;
        }
        wait::until("the agent to end", stage::LIMIT, is_gone)?;
        ensure!(self.stage.generation(address)? == serving, "another generation serves now");
        ensure!(!agent.pins().exists(), "pins are left in `{}`", agent.pins().display());
        ensure!(!agent.cgroup().exists(), "a cgroup is left: `{}`", agent.cgroup().display());
        Ok(servers)
    }

    /// The processes of all generations. Launched ones are nobody's child.
    fn servers(&self) -> Result<Vec<Handle>> {
        let service = self.stage.agent.service(PORT)?;
        let pids = service.generations.iter().flat_map(|it| &it.pids);
        // One may end just now.
        Ok(pids.filter_map(|pid| Handle::open(*pid).ok()).collect())
    }
}

/// As a service manager starts it, but that it ends with the last service, so that its end is a row too.
fn daemon(stage: &Stage) -> Result<Child> {
    let agent = &stage.agent;
    let mut command = agent.command(&["daemon", "--exit-when-detached"]);
    let log = OpenOptions::new().create(true).append(true).open(log_file(agent))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    stage.namespace.spawn(&mut command)
}

/// What its agents said, one after the other. Not where they would look for it: it is read after their end.
pub(crate) fn log_file(agent: &Agent) -> PathBuf {
    agent.runtime().join("said.log")
}

/// One that was killed just now may hold its lock for a moment yet.
pub(crate) fn start_agent(stage: &Stage) -> Result<()> {
    let mut started = daemon(stage)?;
    wait::until("the agent to answer", stage::LIMIT, || {
        if started.try_wait()?.is_some() && stage.agent.daemon().is_none() {
            started = daemon(stage)?;
        }
        Ok(stage.agent.run(&["status"])?.success().ok())
    })
    .map(drop)
}
