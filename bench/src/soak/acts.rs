//! Each event, as it is done to a service that is steady, and how it has to end.
//!
//! Where an event needs the old generation to be alive for long enough, a connection of ours is there before and is idle: the
//! generation drains until it is dropped.

use std::fmt;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent_api::{ExitCode, GenerationState, ServiceView};
use agent_rollout::{Kind, PortHold, RolloutId};
use anyhow::{Context as _, Result, bail, ensure};

use super::cast::Role;
use super::change::{Change, End, Goal, Until};
use super::control::Control;
use super::death::Death;
use super::event::Event;
use super::supervisor::Restart;

/// Who does something to one service.
#[derive(Debug)]
pub(super) struct Actor<'world> {
    pub(super) control: Control<'world>,
    pub(super) role: &'world Role,
    pub(super) random: fastrand::Rng,
    /// The name of the service, of which those of its cgroups are made.
    name: String,
    /// The generation that serves.
    serving: u32,
    /// The highest number that a generation has had.
    last: u32,
    rollout: Option<RolloutId>,
    pub(super) deaths: Vec<Death>,
    pub(super) restarts: Vec<Restart>,
}

impl<'world> Actor<'world> {
    /// One for a service whose first generation serves.
    pub(super) fn new(
        control: Control<'world>,
        role: &'world Role,
        random: fastrand::Rng,
    ) -> Result<Self> {
        let name = control.service()?.name.to_string();
        let (rollout, deaths, restarts) = (None, Vec::new(), Vec::new());
        Ok(Self { control, role, random, name, serving: 1, last: 1, rollout, deaths, restarts })
    }

    /// Does it, and waits until the service is steady again. If the agent is killed when it is about to launch a generation, the
    /// upgrade ends with that and nothing has happened: it is done again.
    pub(super) fn act(&mut self, event: Event) -> Result<()> {
        loop {
            match self.attempt(event) {
                Err(error) if error.is::<LaunchCut>() => {
                    self.control.world.notes().cut_launches += 1;
                    self.must_be_steady()?;
                }
                ended => return ended,
            }
        }
    }

    fn attempt(&mut self, event: Event) -> Result<()> {
        let rollouts = self.control.rollouts()?;
        self.rollout = rollouts.iter().map(|rollout| rollout.id).max();
        match event {
            Event::Upgrade => self.upgrade(),
            Event::ExitAtStart => self.exit_at_start(),
            Event::NeverListen => self.never_listen(),
            Event::NeverAccept => self.never_accept(),
            Event::CrashAfterSwitch => self.crash_after_switch(),
            Event::StopAccepting => self.stop_accepting(),
            Event::Undo => self.undo(),
            Event::UpgradeDuringDrain => self.upgrade_during_drain(),
            Event::KillCandidate => self.kill_candidate(),
            Event::KillPrimary => self.kill_primary(),
            Event::KillDraining => self.kill_draining(),
            Event::Restart => self.restart(),
            Event::AddWorker => self.add_worker(),
            Event::RecycleWorker => self.recycle_worker(),
        }?;
        self.must_be_steady()
    }

    fn must_be_steady(&self) -> Result<()> {
        let service = self.control.until_steady()?;
        let alone = service.generations[0].number.0;
        ensure!(alone == self.serving, "generation {alone} is left, not {}", self.serving);
        Ok(())
    }

    /// The generation that serves.
    pub(super) fn serving(&self) -> u32 {
        self.serving
    }

    /// Whether everything can be done to the service: the agent has launched what serves, and it shares the port. A first
    /// generation is not launched, and one after a server with Multipath TCP does not share.
    pub(super) fn is_ready(&self) -> Result<bool> {
        let service = self.control.until_steady()?;
        let serving = &service.generations[0];
        Ok(serving.launched && serving.hold == PortHold::Shared)
    }

    /// A generation of this number serves that was not brought in by a command.
    pub(super) fn serve_as(&mut self, number: u32) {
        (self.serving, self.last) = (number, number);
    }

    pub(super) fn upgrade(&mut self) -> Result<()> {
        let next = self.next();
        self.begin(next, &[], &self.role.server.command(next)?, Until::Drained)?
            .finish()?
            .must_be(ExitCode::Done)?;
        self.serving = next;
        Ok(())
    }

    fn exit_at_start(&mut self) -> Result<()> {
        let next = self.next();
        let command = ["sh", "-c", "echo 'no such setting: colour' >&2; exit 1"].map(str::to_owned);
        self.begin(next, &[], &command, Until::Drained)?.finish()?.must_be(ExitCode::NotReady)
    }

    fn never_listen(&mut self) -> Result<()> {
        let next = self.next();
        let command = ["sleep", "1000"].map(str::to_owned);
        let options = ["--timeout", "1s"];
        self.begin(next, &options, &command, Until::Drained)?.finish()?.must_be(ExitCode::NotReady)
    }

    fn never_accept(&mut self) -> Result<()> {
        let next = self.next();
        let broken = self.role.deaf(next)?;
        let options = ["--timeout", "1s"];
        let upgrade = self.begin(next, &options, &broken.command, Until::Drained)?;
        upgrade.finish()?.must_be(ExitCode::NotReady)
    }

    /// One that nobody has asked to accept before the switch stands for one that stops right after it. Only an agent can take
    /// it back, so that this one has to live meanwhile.
    fn stop_accepting(&mut self) -> Result<()> {
        let _needed = self.control.world.need_agent();
        let next = self.next();
        let broken = self.role.deaf(next)?;
        let options = ["--ready", "listen", "--settle", SETTLE];
        let upgrade = self.begin(next, &options, &broken.command, Until::Drained)?;
        upgrade.finish()?.must_be(ExitCode::RolledBack)?;
        // What waits is served when that one has ended.
        self.must_be_steady()
    }

    fn crash_after_switch(&mut self) -> Result<()> {
        let next = self.next();
        let _anchor = self.anchor()?;
        let broken = self.role.crashing(next, self.random.u32(1..=31))?;
        let end = self.begin(next, &[], &broken.command, Until::Drained)?.finish()?;
        end.must_be(ExitCode::RolledBack)?;
        self.deaths.push(Death::told(&self.role.last_words(next), Instant::now())?);
        Ok(())
    }

    fn undo(&mut self) -> Result<()> {
        let _anchor = self.anchor()?;
        let next = self.next();
        self.begin(next, &[], &self.role.server.command(next)?, Until::Switched)?
            .finish()?
            .must_be(ExitCode::Done)?;
        self.wait();
        let goal = Goal {
            kind: Kind::Undo,
            to: self.serving,
            after: self.rollout,
            until: Until::Switched,
        };
        let port = self.control.port.to_string();
        let arguments = ["undo", "--port", &port, "-o", "json", "--drain-timeout", DRAIN];
        let arguments = arguments.map(str::to_owned).to_vec();
        Change::begin(self.control, goal, arguments)?.finish()?.must_be(ExitCode::Done)
    }

    fn upgrade_during_drain(&mut self) -> Result<()> {
        let anchor = self.anchor()?;
        let next = self.next();
        self.begin(next, &[], &self.role.server.command(next)?, Until::Switched)?
            .finish()?
            .must_be(ExitCode::Done)?;
        self.serving = next;
        self.wait();
        let next = self.next();
        let second = self.begin(next, &[], &self.role.server.command(next)?, Until::Drained)?;
        self.wait();
        drop(anchor);
        second.finish()?.must_be(ExitCode::Done)?;
        self.serving = next;
        Ok(())
    }

    fn kill_candidate(&mut self) -> Result<()> {
        let next = self.next();
        let broken = self.role.late(next)?;
        let options = ["--timeout", "30s"];
        let mut upgrade = self.begin(next, &options, &broken.command, Until::Drained)?;
        self.until_state(&mut upgrade, next, GenerationState::Starting)?;
        self.wait();
        self.kill(next)?;
        upgrade.finish()?.must_be(ExitCode::NotReady)
    }

    fn kill_primary(&mut self) -> Result<()> {
        let _anchor = self.anchor()?;
        let (next, upgrade) = self.switched()?;
        self.kill(next)?;
        upgrade.finish()?.must_be(ExitCode::RolledBack)
    }

    fn kill_draining(&mut self) -> Result<()> {
        let _anchor = self.anchor()?;
        let (next, upgrade) = self.switched()?;
        self.kill(self.serving)?;
        self.serving = next;
        let end = upgrade.finish()?;
        let world = self.control.world;
        let unseen = self.deaths.last().is_some_and(|death| world.agent_missed(death));
        if unseen && end.code == ExitCode::Done as i32 {
            world.notes().missed_deaths += 1;
            return Ok(());
        }
        // Our own connection ended with it.
        end.must_be(ExitCode::FlowsCut)
    }

    /// The number of the next generation.
    pub(super) fn next(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    fn begin(
        &self,
        to: u32,
        options: &[&str],
        command: &[String],
        until: Until,
    ) -> Result<Change<'world>> {
        let mut all = vec!["--drain-timeout", DRAIN];
        if until == Until::Switched {
            all.extend(["--wait", "switched"]);
        }
        all.extend(options);
        let arguments = tests::agent::upgrade(self.control.port, &all, command);
        let goal = Goal { kind: Kind::Upgrade, to, after: self.rollout, until };
        Change::begin(self.control, goal, arguments)
    }

    /// Begins an upgrade, and waits until it has switched, and then a while.
    fn switched(&mut self) -> Result<(u32, Change<'world>)> {
        let next = self.next();
        let command = self.role.server.command(next)?;
        let mut upgrade = self.begin(next, &[], &command, Until::Drained)?;
        self.until_state(&mut upgrade, next, GenerationState::Primary)?;
        self.wait();
        Ok((next, upgrade))
    }

    /// A connection that keeps the serving generation alive.
    fn anchor(&self) -> Result<TcpStream> {
        let stage = &self.control.world.stage;
        let anchor = stage.connect(self.role.server.address())?;
        let client = anchor.local_addr()?.port();
        self.control.until("our connection to be accepted", |control| {
            let flows = stage.flows(control.port)?;
            let ours = flows.iter().find(|flow| flow.remote.port() == client);
            Ok(ours.and_then(|flow| flow.inode).map(drop))
        })?;
        Ok(anchor)
    }

    /// Lets a moment pass of which nobody knows how long it is.
    fn wait(&mut self) {
        let most = u64::try_from(LONGEST_WAIT.as_millis()).unwrap_or(u64::MAX);
        self.control.world.pause(Duration::from_millis(self.random.u64(0..=most)));
    }

    /// Waits until a generation is so far, unless its rollout ends before.
    fn until_state(
        &self,
        change: &mut Change<'_>,
        number: u32,
        state: GenerationState,
    ) -> Result<()> {
        self.control
            .until("a generation to come so far", |control| {
                if let Some(end) = change.poll()? {
                    return Ok(Some(Err(end)));
                }
                let there = is(&control.service()?, number, state);
                Ok(there.then_some(Ok(())))
            })?
            .or_else(|end: End| end.wrong("going on"))
    }

    pub(super) fn kill(&mut self, generation: u32) -> Result<()> {
        let cgroup: PathBuf = self.control.world.stage.agent.cgroup_of(&self.name, generation)?;
        let death = Death::kill(&self.control.world.stage, &cgroup, self.control.port)
            .with_context(|| format!("kill generation {generation}"))?;
        self.deaths.push(death);
        Ok(())
    }
}

/// An upgrade did not come to pass because the agent was killed when it was about to launch the new generation.
#[derive(Debug)]
struct LaunchCut;

impl fmt::Display for LaunchCut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the agent was killed when it was about to launch a generation")
    }
}

impl End {
    /// The end is there, and this has to be it.
    fn must_be(self, code: ExitCode) -> Result<()> {
        match self.code == code as i32 {
            true => Ok(()),
            false => self.wrong(&format!("exit code {}", code as i32)),
        }
    }

    /// It is no end that may come.
    fn wrong(self, instead: &str) -> Result<()> {
        let Self { code, said, launch_cut } = self;
        if launch_cut {
            bail!(LaunchCut);
        }
        bail!("exit code {code} instead of {instead}: {said}");
    }
}

/// Whether a generation is there, so far, and has processes.
fn is(service: &ServiceView, number: u32, state: GenerationState) -> bool {
    let generation = service.generations.iter().find(|generation| generation.number.0 == number);
    generation.is_some_and(|it| it.state == state && !it.pids.is_empty())
}

/// Longer than any client stays, and never reached.
const DRAIN: &str = "30s";
/// Far longer than it takes to see that nobody accepts.
const SETTLE: &str = "60s";
const LONGEST_WAIT: Duration = Duration::from_millis(800);
