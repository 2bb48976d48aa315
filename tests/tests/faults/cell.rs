//! One fault at one place of one operation.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use agent::daemon::Step;
use agent_load::Plan;
use anyhow::{Context as _, Result, ensure};
use tests::agent::{Output, Pending};
use tests::process::Handle;
use tests::servers::Server as _;
use tests::stage;
use tests::wait;

use crate::operation::{Operation, Scene, log_file, start_agent};

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

    /// Whether a failure was told to who asked, or in the agent's log.
    fn is_told(&self, output: Option<&Output>, log: &str) -> bool {
        let failure = format!("{}: a test has it fail", self.place.step);
        self.fault != Fault::Fail
            || log.contains(&failure)
            || output.is_some_and(|it| it.stderr.contains(&failure))
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
            fs::write(self.faults().join("armed"), armed)?;
        }
        let (output, met) = self.perform(cell).with_context(|| self.log())?;
        let said = |scene: &Scene| format!("{output:?}\n{}", log_of(scene));
        self.scene.check(output.as_ref(), cell).with_context(|| said(&self.scene))?;
        if let (Some(cell), Met::Yes) = (cell, met) {
            let (log, checked) = (self.log(), self.scene.check_told(cell));
            ensure!(cell.is_told(output.as_ref(), &log), "nobody was told\n{log}");
            checked.with_context(|| said(&self.scene))?;
        }
        let passed = fs::read_to_string(self.faults().join("passed")).unwrap_or_default();
        fs::remove_dir_all(self.faults())?;
        let servers = self.scene.end().with_context(|| said(&self.scene))?;
        let summary = load.stop().await.summary;
        servers.iter().try_for_each(Handle::kill)?;
        ensure!(summary.failures() == 0, "{summary}\n{}", said(&self.scene));
        Ok((passed, met))
    }

    /// Does it, starts the agent again when it is killed, and waits until nothing is left to be done.
    fn perform(&mut self, cell: Option<&Cell>) -> Result<(Option<Output>, Met)> {
        let mut command = self.scene.begin()?;
        let mut restarted = false;
        let met = wait::until("the end of it", stage::LIMIT, || {
            if !restarted && self.has_died() {
                restarted = true;
                start_agent(&self.scene.stage)?;
            }
            if !command.as_mut().map_or(Ok(true), Pending::has_ended)? {
                return Ok(None);
            }
            self.scene.let_go()?;
            // Asked for before the rest: an agent that answers after the fault came has done all that follows from it.
            let came = self.came();
            if self.is_at_rest()? { self.met(cell, came) } else { Ok(None) }
        });
        let said = || format!("{:?}", command.as_ref().map(Pending::said));
        let met = met.with_context(said)?;
        Ok((command.map(Pending::finish).transpose()?, met))
    }

    /// Whether the fault came. How often a step comes is not the same each time, but the first one always does.
    fn met(&self, cell: Option<&Cell>, came: bool) -> Result<Option<Met>> {
        match cell {
            None => Ok(Some(Met::No)),
            Some(_) if came => Ok(Some(Met::Yes)),
            Some(cell) if cell.place.pass == 0 => Ok(None),
            // The agent has it in its hand if it is not there: then it may come yet.
            Some(_) => match fs::remove_file(self.faults().join("armed")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                removed => Ok(removed.map(|()| Some(Met::No))?),
            },
        }
    }

    /// Whether the agent was killed by a fault, or could not start for one.
    fn has_died(&self) -> bool {
        let agent = &self.scene.stage.agent;
        self.came() && agent.daemon().is_none() && !self.has_ended_by_itself()
    }

    fn has_ended_by_itself(&self) -> bool {
        let agent = &self.scene.stage.agent;
        !agent.pins().exists()
            && !agent.cgroup().exists()
            && !agent.runtime().join("state.json").exists()
    }

    /// Whether nothing is under way any more. A command may end before that: `undo` ends with the switch.
    fn is_at_rest(&self) -> Result<bool> {
        let agent = &self.scene.stage.agent;
        if agent.daemon().is_none() {
            return Ok(self.has_ended_by_itself());
        }
        // The agent may die just now.
        Ok(agent.run(&["status", "--exit-code"])?.code == Some(0))
    }

    fn came(&self) -> bool {
        self.faults().join("came").exists()
    }

    fn faults(&self) -> PathBuf {
        self.scene.stage.agent.runtime().join("faults")
    }

    fn log(&self) -> String {
        log_of(&self.scene)
    }
}

fn log_of(scene: &Scene) -> String {
    fs::read_to_string(log_file(&scene.stage.agent)).unwrap_or_default()
}
