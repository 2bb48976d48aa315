//! Where growth is measured: a namespace with an agent, and servers of any size.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent_api::{Explanation, GenerationState, RolloutView, ServiceView, Services};
use anyhow::{Context as _, Result, ensure};
use aya::sys::{Stats, enable_stats};
use serde::de::DeserializeOwned;

use super::held::Held;
use super::series::{Collector, What};
use super::server::Wide;
use crate::bpftool::Program;
use crate::interrupt::Interrupt;
use crate::measure::bench::answer;
use crate::measure::closed_loop::Client;
use crate::measure::control::Control;
use crate::measure::cores::Cores;
use crate::usage;
use tests::agent::Pending;
use tests::servers::{self, Started};
use tests::stage::{LIMIT, Stage, generations};
use tests::wait;

/// What all kinds of growth have in common.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) interrupt: Interrupt,
    pub(super) cores: Cores,
    /// The program that holds connections.
    pub(super) holder: PathBuf,
}

/// Dropped in this order: the agent with all that it started, then the servers.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) stage: Stage,
    pub(super) tools: Tools,
    daemon: Option<Pending>,
    started: Vec<Started>,
}

impl Ground {
    /// Moves this process into a new namespace and starts the agent there, with nothing attached.
    pub(super) fn new(tools: &Tools) -> Result<Self> {
        let stage = Stage::new()?;
        stage.namespace.settle()?;
        let mut ground = Self { stage, tools: tools.clone(), daemon: None, started: Vec::new() };
        ground.start_agent()?;
        Ok(ground)
    }

    /// Starts the agent, and says how long it takes until it answers.
    fn start_agent(&mut self) -> Result<Duration> {
        let agent = &self.stage.agent;
        let begun = Instant::now();
        let start = || agent.start(&mut agent.command(&["daemon"]));
        self.daemon = Some(self.tools.cores.on_servers(start)?);
        loop {
            // The new one makes the socket before it answers, and answers when it has taken over.
            match Control::connect(agent.runtime(), 0).and_then(|mut control| control.services()) {
                Ok(_) => return Ok(begun.elapsed()),
                Err(error) if begun.elapsed() > LIMIT => return Err(error),
                Err(_) => wait::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Kills the agent and starts it again, and says how long it takes from there until it answers.
    pub(super) fn restart_agent(&mut self) -> Result<Duration> {
        self.check()?;
        self.stage.agent.kill_daemon()?;
        self.daemon.take().context("no agent was started")?.finish()?;
        self.start_agent()
    }

    /// Starts the first generation of a server.
    pub(super) fn start(&mut self, server: &Wide) -> Result<()> {
        let start = || servers::start(server, &self.stage.namespace, 1);
        self.started.push(self.tools.cores.on_servers(start)?);
        Ok(())
    }

    /// Fails once somebody wants the run to end.
    pub(super) fn check(&self) -> Result<()> {
        self.tools.interrupt.check()
    }

    /// Runs a command of the agent, which must succeed, and says how long it took.
    pub(super) fn timed<T: DeserializeOwned>(&self, words: &[&str]) -> Result<(Duration, T)> {
        self.check()?;
        let mut command = self.stage.agent.command(words);
        answer(command.args(["-o", "json"])).with_context(|| format!("`agent {words:?}`"))
    }

    /// Upgrades, and says how long it took until all new connections went to the new generation.
    pub(super) fn upgrade(&self, server: &Wide, generation: u32) -> Result<Duration> {
        let port = servers::Server::port(server).to_string();
        let command = servers::Server::command(server, generation)?;
        // Of a service with few of the server's ports the others end with the old generation.
        let mut words = vec!["upgrade", "--port", &port, "--also", "--wait", "switched"];
        words.extend(["-o", "json", "--"]);
        words.extend(command.iter().map(String::as_str));
        self.check()?;
        let (took, _): (_, RolloutView) = answer(&mut self.stage.agent.command(&words))
            .with_context(|| format!("upgrade to generation {generation}"))?;
        Ok(took)
    }

    /// `agent status` from its start to its exit.
    pub(super) fn status(&self) -> Result<Duration> {
        self.timed(&["status"]).map(|(took, _): (_, Services)| took)
    }

    /// How many generations a new connection is offered to.
    pub(super) fn offers(&self, address: SocketAddr) -> Result<usize> {
        let (_, explained): (_, Explanation) = self.timed(&["explain", &address.to_string()])?;
        Ok(explained.offers.len())
    }

    /// Opens connections and holds them.
    pub(super) fn hold(&self, port: u16, count: u32, first: Ipv4Addr) -> Result<Held> {
        self.check()?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Held::open(&self.tools.holder, &self.tools.cores, address, (count, first))
    }

    /// What `steer` takes for one connection: the mean of a batch to a port, all to be answered by one generation.
    pub(super) fn steer(&self, port: u16, generation: u32) -> Result<f64> {
        self.check()?;
        let _counting = enable_stats(Stats::RunTime).context("let the kernel count run times")?;
        let steer = Program::linked(&self.stage.agent.links().join("steer"))?;
        let mut client = Client::of((Ipv4Addr::LOCALHOST, port).into(), generation);
        let before = steer.runs()?;
        self.tools.cores.on_clients(|| (0..BATCH).try_for_each(|_| client.once()))?;
        let runs = steer.runs()?.since(before);
        ensure!(runs.count >= u64::from(BATCH), "steer ran {} times for {BATCH}", runs.count);
        Ok(runs.nanoseconds_each())
    }

    /// Lets two generations take turns, by requests.
    pub(super) fn switches(
        &self,
        control: &mut Control,
        (collector, place): (&mut Collector, usize),
    ) -> Result<()> {
        for _ in 0..SWITCHES {
            let [first, second] = self.undo_twice(control)?;
            collector.add_time(What::SwitchRequest, place, first);
            collector.add_time(What::SwitchAtOnce, place, second);
        }
        Ok(())
    }

    /// Puts the previous generation back by a request, and at once the one before again by another one. Then waits until the
    /// agent is at rest, with the same generation as before.
    fn undo_twice(&self, control: &mut Control) -> Result<[Duration; 2]> {
        self.check()?;
        let (first, rollout) = control.undo()?;
        rollout.switched_after.context("the answer came before the switch")?;
        let (second, rollout) = control.undo()?;
        rollout.switched_after.context("the answer came before the switch")?;
        rest(control, rollout.from.0)?;
        Ok([first, second])
    }

    /// What the agent uses of a processor, by itself, in some seconds.
    pub(super) fn use_at_rest(&self) -> Result<f64> {
        let pid = self.stage.agent.daemon().context("the agent runs")?.pid();
        // Not the end of what was done before.
        wait::sleep(CALM);
        let (before, begun) = (usage::used(pid)?, Instant::now());
        wait::sleep(REST);
        let used = usage::used(pid)?.saturating_sub(before);
        Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    /// Waits until the kernel lists as many connections on a port as clients hold, and the agent counts for each generation
    /// what it should. A change that the kernel does not list any more is counted within microseconds.
    ///
    /// # Errors
    ///
    /// If they do not come to agree.
    pub(super) fn expect_counts(&self, port: u16, held: &[(u32, u64)]) -> Result<()> {
        let all: u64 = held.iter().map(|(_, count)| count).sum();
        let mut last = None;
        let agreed = wait::until("all counts to be the same", AGREE, || {
            let listed = self.stage.flows(port)?.len() as u64;
            let (_, counted) = last.insert((listed, counts(&self.stage.agent.service(port)?)));
            Ok((listed == all && counted == held).then_some(()))
        });
        agreed.with_context(|| {
            format!("clients hold {held:?} by generation; the kernel lists, and the agent counts: {last:?}")
        })
    }
}

/// Waits until a replaced generation drains and was looked at: nothing is under way then but a look every second.
pub(super) fn rest(control: &mut Control, generation: u32) -> Result<()> {
    wait::until("the replaced generation to drain", LIMIT, || {
        let (_, service) = control.status()?;
        let state = generations(&service).get(&generation).map(|it| it.state);
        Ok((state == Some(GenerationState::Draining)).then_some(()))
    })?;
    // The first look of its drain comes right after the change; who asks now is answered after it.
    control.status().map(drop)
}

fn counts(service: &ServiceView) -> Vec<(u32, u64)> {
    service.generations.iter().map(|it| (it.number.0, it.open_flows)).collect()
}

const SWITCHES: u32 = 12;
const BATCH: u32 = 1_000;
const CALM: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_secs(3);
/// How long counts may differ.
const AGREE: Duration = Duration::from_secs(5);
