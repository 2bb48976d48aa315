//! A command that changes something, and how it truly ended: also if the agent was killed before it could answer.

use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use agent_api::{ExitCode, RolloutView};
use agent_rollout::{Kind, Outcome, RolloutId, Status};
use anyhow::{Result, bail};

use super::control::Control;
use tests::agent::{Output, Pending};
use tests::wait;

/// A command under way.
#[derive(Debug)]
pub(super) struct Change<'world> {
    control: Control<'world>,
    arguments: Vec<String>,
    goal: Goal,
    begun: Instant,
    progress: Progress,
}

/// What a command is to do, by which its rollout is found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    pub(super) kind: Kind,
    /// The generation that takes over.
    pub(super) to: u32,
    /// How many rollouts of the service had been begun before.
    pub(super) after: Option<RolloutId>,
    pub(super) until: Until,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) code: i32,
    /// What it told on the way.
    pub(super) said: String,
    /// Whether the new generation did not become ready, and the agent was killed when it was about to launch it.
    pub(super) launch_cut: bool,
}

/// How far a command waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Until {
    Switched,
    Drained,
}

#[derive(Debug)]
enum Progress {
    /// `None` only while it is looked at.
    Running(Option<Pending>),
    /// The agent was killed before it could tell the command that the rollout had begun. It goes on nevertheless.
    Orphaned(RolloutId),
    Ended(End),
}

impl<'world> Change<'world> {
    pub(super) fn begin(
        control: Control<'world>,
        goal: Goal,
        arguments: Vec<String>,
    ) -> Result<Self> {
        let progress = Progress::Running(None);
        let mut change = Self { control, arguments, goal, begun: Instant::now(), progress };
        change.start()?;
        Ok(change)
    }

    /// How it ended, if it has.
    pub(super) fn poll(&mut self) -> Result<Option<End>> {
        match &mut self.progress {
            Progress::Ended(end) => return Ok(Some(end.clone())),
            Progress::Orphaned(id) => {
                let id = *id;
                let rollouts = self.control.rollouts()?;
                let found = rollouts.iter().find(|rollout| rollout.id == id);
                if let Some(code) = found.and_then(|rollout| code(rollout, self.goal.until)) {
                    let said = "the agent was killed before it answered".to_owned();
                    self.progress = Progress::Ended(self.end(code, said));
                }
            }
            Progress::Running(command) => {
                if command.as_mut().map_or(Ok(true), Pending::has_ended)?
                    && let Some(command) = command.take()
                {
                    let output = command.finish()?;
                    self.judge(output)?;
                }
            }
        }
        Ok(None)
    }

    /// Waits for its end.
    pub(super) fn finish(mut self) -> Result<End> {
        let what = format!("the end of {:?}", self.arguments);
        wait::until(&what, LIMIT, || self.poll())
    }

    fn end(&self, code: i32, said: String) -> End {
        let launch = self.begun..self.begun + LAUNCH;
        let killed = self.control.world.agent_was_killed(&launch);
        End { code, said, launch_cut: killed && code == NOT_READY }
    }

    fn start(&mut self) -> Result<()> {
        let agent = &self.control.world.stage.agent;
        self.begun = Instant::now();
        let mut command = agent.command(&self.arguments);
        // Ctrl-C is for us: what has begun is waited for.
        let command = agent.start(command.process_group(0))?;
        self.progress = Progress::Running(Some(command));
        Ok(())
    }

    /// Takes the exit code for the truth, unless the command says that it got no answer and the agent was killed.
    fn judge(&mut self, output: Output) -> Result<()> {
        let Some(code) = output.code else { bail!("a signal ended {:?}", self.arguments) };
        let Goal { kind, to, after, .. } = self.goal;
        if !(is_unanswered(&output) && self.control.world.agent_was_away(self.begun)) {
            let begun: Option<RolloutView> = serde_json::from_str(&output.stdout).ok();
            if let Some(other) = begun.filter(|rollout| (rollout.kind, rollout.to.0) != (kind, to))
            {
                bail!("{:?} did something else: {other:?}", self.arguments);
            }
            self.progress = Progress::Ended(self.end(code, output.stderr));
            return Ok(());
        }
        self.control.until_agent_is_back()?;
        let rollouts = self.control.rollouts()?;
        let ours = |it: &&RolloutView| it.kind == kind && it.to.0 == to && Some(it.id) > after;
        match rollouts.iter().rfind(ours) {
            Some(rollout) => {
                self.progress = Progress::Orphaned(rollout.id);
                Ok(())
            }
            None => self.start(),
        }
    }
}

/// Whether a command could not reach the agent, or not to the end.
fn is_unanswered(output: &Output) -> bool {
    let says = |words: &str| output.stderr.contains(words);
    match output.code {
        Some(NOT_FOUND) => says("no agent is running"),
        Some(FAILED) => {
            says("the connection to the agent broke") || says("the agent's answer was cut off")
        }
        _ => false,
    }
}

/// How a command ends that waits for this rollout, if it is so far.
fn code(rollout: &RolloutView, until: Until) -> Option<i32> {
    let code = match (&rollout.status, until) {
        (Status::MakingReady, _) | (Status::Settling | Status::Draining, Until::Drained) => {
            return None;
        }
        (Status::Settling | Status::Draining, Until::Switched)
        | (Status::Ended(Outcome::Completed | Outcome::OldDied { flows: 0 }), _) => ExitCode::Done,
        (
            Status::Ended(
                Outcome::DeadlinePassed { .. } | Outcome::OldDied { .. } | Outcome::Outlived { .. },
            ),
            _,
        ) => ExitCode::FlowsCut,
        (Status::Ended(Outcome::NewDied), _) => ExitCode::Failed,
        (Status::Ended(Outcome::NotReady { .. }), _) => ExitCode::NotReady,
        (Status::Ended(Outcome::RolledBack { .. }), _) => ExitCode::RolledBack,
    };
    Some(code as i32)
}

const NOT_READY: i32 = ExitCode::NotReady as i32;
const NOT_FOUND: i32 = ExitCode::NotFound as i32;
const FAILED: i32 = ExitCode::Failed as i32;
/// From the begin of a command to the begin of the program that it brings in, on a busy machine.
const LAUNCH: Duration = Duration::from_secs(1);
/// More than the longest drain.
const LIMIT: Duration = Duration::from_secs(120);
