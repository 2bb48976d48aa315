//! One fault at one place of one operation.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use agent::daemon::Step;
use agent::load::Plan;
use anyhow::{Context as _, Result, ensure};
use tests::agent::Output;
use tests::process::Handle;
use tests::servers::Server as _;
use tests::stage;
use tests::wait;

use crate::operation::{Operation, Scene, start_agent};

/// The how-manieth time a step is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) step: Step,
    pub(crate) pass: u32,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Fail,
    KillBefore,
    KillAfter,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) operation: Operation,
    pub(crate) place: Place,
    pub(crate) fault: Fault,
}

/// Whether the operation came to the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Yes,
    No,
}

impl Fault {
    pub(crate) const ALL: [Self; 3] = [Self::Fail, Self::KillBefore, Self::KillAfter];

    const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::KillBefore => "kill-before",
            Self::KillAfter => "kill-after",
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, place: Place { step, pass }, fault } = self;
        write!(f, "{operation:?}: {} {step}, pass {pass}", fault.name())
    }
}

/// The places that an operation comes to when all goes well.
pub(crate) async fn places(operation: Operation) -> Result<Vec<Place>> {
    let passed = Play::new(operation)?.act(None).await.context("without any fault")?.0;
    let mut counts: BTreeMap<Step, u32> = BTreeMap::new();
    let mut places = Vec::new();
    for name in passed.lines() {
        let step = *Step::ALL.iter().find(|it| it.name() == name).context("a step has a name")?;
        let count = counts.entry(step).or_default();
        places.push(Place { step, pass: *count });
        *count += 1;
    }
    Ok(places)
}

impl Cell {
    pub(crate) async fn run(&self) -> Result<Met> {
        Ok(Play::new(self.operation)?.act(Some(self)).await?.1)
    }
}

/// An operation from its preparation to its end.
struct Play {
    scene: Scene,
}

impl Play {
    fn new(operation: Operation) -> Result<Self> {
        let scene = Scene::before(operation)?;
        fs::create_dir(scene.stage.agent.runtime().join("faults"))?;
        Ok(Self { scene })
    }

    /// Returns the steps that were passed, and whether the fault came.
    async fn act(mut self, cell: Option<&Cell>) -> Result<(String, Met)> {
        let plan = Plan { keep_alive: None, ..self.scene.server.plan() };
        let load = self.scene.stage.load(plan)?;
        if let Some(Cell { place, fault, .. }) = cell {
            let armed = format!("{} {} {}\n", fault.name(), place.step, place.pass);
            fs::write(self.armed(), armed)?;
        }
        let output = self.perform()?;
        self.scene.check(output.as_ref()).with_context(|| self.log())?;
        let met = if self.armed().exists() { Met::No } else { Met::Yes };
        let passed = fs::read_to_string(self.faults().join("passed")).unwrap_or_default();
        fs::remove_dir_all(self.faults())?;
        let servers = self.scene.end().with_context(|| self.log())?;
        let summary = load.stop().await.summary;
        servers.iter().try_for_each(Handle::kill)?;
        ensure!(summary.failures() == 0, "{summary}\n{}", self.log());
        Ok((passed, met))
    }

    /// Does it, and starts the agent again when it is killed.
    fn perform(&mut self) -> Result<Option<Output>> {
        let mut command = self.scene.begin()?;
        let mut restarted = false;
        let settled = wait::until("the end of it", stage::LIMIT, || {
            if !restarted && self.has_died() {
                restarted = true;
                start_agent(&self.scene.stage.agent)?;
            }
            match &mut command {
                Some(command) => Ok(command.has_ended()?.then_some(())),
                None => Ok(self.is_at_rest()?.then_some(())),
            }
        });
        settled.with_context(|| self.log())?;
        command.map(|command| command.finish()).transpose()
    }

    /// Whether the agent was killed by a fault, or could not start for one.
    fn has_died(&self) -> bool {
        let agent = &self.scene.stage.agent;
        agent.daemon().is_none() && !self.armed().exists() && !self.has_ended_by_itself()
    }

    fn has_ended_by_itself(&self) -> bool {
        !self.scene.stage.agent.pins().exists()
            && !self.scene.stage.agent.cgroup().exists()
            && !self.scene.stage.agent.runtime().join("state.json").exists()
    }

    fn is_at_rest(&self) -> Result<bool> {
        let agent = &self.scene.stage.agent;
        if agent.daemon().is_none() {
            return Ok(false);
        }
        let Ok(status) = agent.run(&["status", "--exit-code"]) else { return Ok(false) };
        Ok(status.code == Some(0))
    }

    fn faults(&self) -> PathBuf {
        self.scene.stage.agent.runtime().join("faults")
    }

    fn armed(&self) -> PathBuf {
        self.faults().join("armed")
    }

    fn log(&self) -> String {
        let log = self.scene.stage.agent.runtime().join("agent.log");
        fs::read_to_string(log).unwrap_or_default()
    }
}
