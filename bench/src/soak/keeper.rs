//! Keeps an agent running, as a service manager does, and kills it now and then.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::world::{Outage, World};
use tests::stage::LIMIT;
use tests::wait;

/// The agent that runs now.
#[derive(Debug)]
pub(super) struct Keeper<'world> {
    world: &'world World,
    daemon: Option<Child>,
    /// Since when it has lived.
    pub(super) since: Instant,
}

impl<'world> Keeper<'world> {
    /// Starts an agent in the foreground, where it stays when nothing is attached.
    pub(super) fn start(world: &'world World) -> Result<Self> {
        let mut keeper = Self { world, daemon: None, since: Instant::now() };
        keeper.start_again()?;
        Ok(keeper)
    }

    /// Kills the agent at moments that nobody foresees, for the first part of the run.
    pub(super) fn play(&mut self) {
        let mut random = self.world.settings.random(KEEPER);
        let killing = self.world.settings.killing();
        loop {
            self.world.pause(Duration::from_millis(random.u64(LEAST_LIFE..=MOST_LIFE)));
            if self.world.is_over() || self.world.elapsed() > killing {
                return self.watch();
            }
            let away = Duration::from_millis(random.u64(0..=LONGEST_AWAY));
            if let Err(error) = self.kill(away) {
                return self.world.give_up(format!("kill the agent and start it again: {error:#}"));
            }
        }
    }

    /// Looks until the end of the run whether the agent goes on.
    fn watch(&mut self) {
        while !self.world.is_over() {
            let ended = self.daemon.as_mut().map(Child::try_wait);
            if let Some(Ok(Some(status))) = ended {
                return self.world.give_up(format!("the agent ended by itself: {status}"));
            }
            self.world.pause(Duration::from_secs(1));
        }
    }

    /// Ends the agent as a service manager does; it must end well.
    pub(super) fn stop(mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("there is no agent")?;
        let pid = i32::try_from(daemon.id())?;
        // Nobody has waited for it, so that its number is its own.
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let status = wait::until("the agent to end", LIMIT, || Ok(daemon.try_wait()?))?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    fn kill(&mut self, away: Duration) -> Result<()> {
        let _spared = self.world.spare_agent();
        let mut daemon = self.daemon.take().context("there is no agent")?;
        // Noted before: whoever sees that there is no agent must find out why.
        self.world.notes().outages.push(Outage { killed: Instant::now(), back: None });
        ensure!(daemon.try_wait()?.is_none(), "the agent has ended by itself");
        daemon.kill()?;
        daemon.wait()?;
        wait::sleep(away);
        self.start_again()?;
        if let Some(outage) = self.world.notes().outages.last_mut() {
            outage.back = Some(Instant::now());
        }
        Ok(())
    }

    fn start_again(&mut self) -> Result<()> {
        let World { stage, settings, .. } = self.world;
        let log = OpenOptions::new().append(true).create(true).open(settings.log())?;
        let mut command = stage.agent.command(&["daemon"]);
        // Ctrl-C is for us: the agent is needed for cleaning up.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let daemon = self.daemon.insert(stage.namespace.spawn(&mut command)?);
        wait::until("the agent to answer", LIMIT, || {
            ensure!(daemon.try_wait()?.is_none(), "the agent has ended by itself");
            let answered =
                stage.agent.daemon().is_some() && stage.agent.run(&["status"])?.code == Some(0);
            Ok(answered.then_some(()))
        })?;
        self.since = Instant::now();
        Ok(())
    }
}

/// Not the number of any service.
const KEEPER: u64 = 999;
/// In milliseconds.
const LEAST_LIFE: u64 = 1_000;
const MOST_LIFE: u64 = 8_000;
const LONGEST_AWAY: u64 = 1_500;
