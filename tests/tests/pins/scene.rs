//! Two generations under load, whose agent is killed, and another agent.

use std::fs;
use std::net::TcpStream;

use agent::datapath::{self, Pinned, Place};
use agent_api::{GenerationState, ServiceView};
use agent_load::{Plan, Running};
use anyhow::{Context as _, Result, ensure};
use tests::agent::Pending;
use tests::servers::{Script, Server, Started};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

use crate::damage::{Damage, Pin, Pins, program_of, remove};

const PORT: u16 = 8080;

pub(crate) struct Scene {
    stage: Stage,
    server: Script,
    pins: Pins,
    /// A connection of generation 1, which drains as long as it is open.
    old: TcpStream,
    running: Option<Running>,
    agent: Option<Pending>,
    first: Option<Started>,
    _other: Stage,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        let server = Script::new(PORT)?;
        let (stage, first) = Stage::attached(&server)?;
        let mut old = stage.connect(server.address())?;
        ensure!(stage::ask(&mut old)? == 1);
        stage.switch(&server, 2, &[])?;
        stage.until("the drain", PORT, |service| {
            service.generations[0].state == GenerationState::Draining
        })?;
        let plan = Plan { keep_alive: None, stream: None, upload: None, ..server.plan() };
        let running = stage.load(plan.one_shot(50))?;
        let other = Stage::new()?;
        other.agent.start_daemon()?;
        let version = format!("v{}", agent_ebpf::SCHEMA);
        let pins = Pins {
            ours: stage.agent.pins().join(&version),
            others: other.agent.pins().join(version),
        };
        Ok(Self {
            stage,
            server,
            pins,
            old,
            running: Some(running),
            agent: None,
            first: Some(first),
            _other: other,
        })
    }

    /// One who looks says what is wrong with the pin, and with it mended that nothing is.
    pub(crate) fn is_noticed(&self, pin: Pin, damage: Damage) -> Result<()> {
        let kept = self.pins.keep(pin, damage)?;
        self.pins.damage(pin, damage)?;
        let path = self.pins.path(pin).display().to_string();
        let found = self.look()?;
        let is_told = |what: &String| what.contains(&path) || damage == Damage::Twin;
        ensure!(
            matches!(&found, Pinned::Broken(what) if is_told(what)),
            "{pin:?}, {damage:?}: {found:?}"
        );
        self.pins.mend(pin, damage, &kept)?;
        let found = self.look()?;
        ensure!(found == Pinned::Whole, "{pin:?}, {damage:?}, mended: {found:?}");
        Ok(())
    }

    fn look(&self) -> Result<Pinned> {
        let agent = &self.stage.agent;
        let look = || Ok(datapath::examine(agent.pins(), Place::with(Some(agent.cgroup()))?)?);
        self.stage.namespace.enter(look)
    }

    /// Of an agent that was killed and whose pins are whole.
    pub(crate) fn revive(&mut self) -> Result<()> {
        self.start()?;
        let said = self.stage.agent.run(&["events"])?.success()?.stdout;
        ensure!(!said.contains("built anew"), "{said}");
        self.old.shutdown(std::net::Shutdown::Both)?;
        self.stage.until_steady(PORT)?;
        self.stage.detach(PORT)
    }

    /// The next agent says that the pins were not usable, and why, and makes others.
    pub(crate) async fn is_built_anew(&mut self, pin: Pin, damage: Damage) -> Result<()> {
        let said = self.survives(pin, damage).await?;
        let name = self.pins.path(pin);
        let is_told = match pin {
            Pin::Version if damage == Damage::Removed => said.contains("was gone"),
            Pin::HalfBuilt => said.contains("they were being built"),
            Pin::Map(name) if damage == Damage::Emptied => said.contains(&format!("`{name}`")),
            // A map that is another one shows by the programs, too.
            Pin::Map(_) | Pin::Link(_) if damage == Damage::Twin => {
                said.contains("pins were not usable")
            }
            _ => said.contains(&name.display().to_string()),
        };
        ensure!(is_told && said.contains("built anew"), "{pin:?}, {damage:?}: {said}");
        Ok(())
    }

    /// The next agent goes on with the same maps.
    pub(crate) async fn is_as_before(&mut self, pin: Pin, damage: Damage) -> Result<()> {
        let said = self.survives(pin, damage).await?;
        ensure!(!said.contains("built anew"), "{pin:?}, {damage:?}: {said}");
        Ok(())
    }

    /// The next agent serves with the pins damaged so; what it said at its start is returned.
    async fn survives(&mut self, pin: Pin, damage: Damage) -> Result<String> {
        self.kill()?;
        self.pins.damage(pin, damage)?;
        let others = self.links_of_other()?;
        let service = self.start().with_context(|| format!("{pin:?}, {damage:?}"))?;
        let said = self.stage.agent.run(&["events"])?.success()?.stdout;
        self.serves(service).await.with_context(|| format!("{pin:?}, {damage:?}: {said}"))?;
        ensure!(
            self.links_of_other()? == others,
            "{pin:?}, {damage:?}: the other agent lost a link"
        );
        remove(&self.pins.aside())?;
        Ok(said)
    }

    /// Generation 2 gets all new connections, by our program; generation 1 has its old one.
    async fn serves(&mut self, before: ServiceView) -> Result<()> {
        const SOME: u64 = 10;
        let answers = self.stage.answers(&self.server, SOME).await?;
        ensure!(answers.keys().eq([&2]), "{answers:?}");
        let after = self.stage.agent.service(PORT)?;
        ensure!(after.steered >= before.steered + SOME, "{before:#?} {after:#?}");
        ensure!(after.fallback == before.fallback && after.unreached == before.unreached);
        ensure!(stage::ask(&mut self.old)? == 1);
        let of_first = stage::generations(&after)[&1];
        ensure!(of_first.open_flows == 1, "{of_first:#?}");
        let pids = |service: &ServiceView| stage::generations(service)[&2].pids.clone();
        ensure!(pids(&before) == pids(&after) && !pids(&after).is_empty());
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.stage.agent.kill_daemon()?;
        self.agent = None;
        Ok(())
    }

    fn start(&mut self) -> Result<ServiceView> {
        let agent = &self.stage.agent;
        let daemon = self.agent.insert(agent.start(&mut agent.command(&["daemon"]))?);
        wait::until("the agent to answer", LIMIT, || {
            ensure!(!daemon.has_ended()?, "the agent ended: {:?}", daemon.said());
            Ok(agent.service(PORT).ok())
        })
    }

    fn links_of_other(&self) -> Result<Vec<u32>> {
        crate::links().map(|link| program_of(&self.pins.others.join("links").join(link))).collect()
    }

    /// Nobody has noticed any of it, and the next upgrade works.
    pub(crate) async fn goes_on(&mut self) -> Result<()> {
        self.old.shutdown(std::net::Shutdown::Both)?;
        self.stage.until_steady(PORT)?;
        self.stage.switch(&self.server, 3, &[])?;
        ensure!(self.stage.generation(self.server.address())? == 3);
        self.stage.until_steady(PORT)?;
        let summary = self.running.take().context("it runs")?.stop().await.summary;
        ensure!(summary.failures() == 0, "{summary}");
        self.stage.detach(PORT)
    }

    pub(crate) async fn shares_its_directory(&mut self) -> Result<()> {
        self.kill()?;
        let theirs = self.stage.agent.pins().join("somebody");
        fs::create_dir(&theirs)?;
        let service = self.start()?;
        self.serves(service).await?;
        let said = self.stage.agent.run(&["events"])?.success()?.stdout;
        ensure!(!said.contains("built anew"), "{said}");
        self.is_built_anew(Pin::Links, Damage::Removed).await?;
        self.goes_on().await?;
        ensure!(theirs.exists(), "it was not ours to remove");
        remove(&theirs)
    }

    /// The state is derived from what steers, and then the pins are built anew.
    pub(crate) async fn is_repaired_without_a_state(
        &mut self,
        pin: Pin,
        damage: Damage,
    ) -> Result<()> {
        self.kill()?;
        self.pins.damage(pin, damage)?;
        fs::remove_file(self.stage.agent.runtime().join("state.json"))?;
        let what = || format!("{pin:?}, {damage:?}");
        let refused = self.stage.agent.run(&["daemon"])?;
        ensure!(
            refused.code == Some(4) && refused.stderr.contains("doctor --repair"),
            "{refused:?}"
        );
        self.stage.agent.run(&["doctor", "--repair"])?.success().with_context(what)?;
        let service = self.stage.agent.service(PORT)?;
        self.serves(service).await.with_context(what)
    }

    /// With the state gone, and all that is attached, nobody can know.
    pub(crate) fn is_given_up_and_attached_again(&mut self) -> Result<()> {
        let service = self.stage.agent.service(PORT)?;
        let pid = stage::generations(&service)[&2].pids[0].to_string();
        self.kill()?;
        self.pins.damage(Pin::Links, Damage::Removed)?;
        self.pins.damage(Pin::Map("ENDPOINTS"), Damage::Program)?;
        fs::remove_file(self.stage.agent.runtime().join("state.json"))?;
        let agent = &self.stage.agent;
        let refused = agent.run(&["doctor", "--repair"])?;
        let fix = format!("rm -r {}", agent.pins().display());
        ensure!(refused.code != Some(0) && refused.stderr.contains(&fix), "{refused:?}");
        fs::remove_dir_all(agent.pins())?;
        self.first = None;
        agent.run(&["doctor", "--repair"])?.success()?;
        let port = PORT.to_string();
        agent.run(&["attach", "--port", &port, "--pid", &pid])?.success()?;
        ensure!(self.stage.generation(self.server.address())? == 2);
        self.stage.detach(PORT)
    }
}
