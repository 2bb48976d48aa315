//! What every server goes through under load: the attach, three upgrades, a broken version, and an undo.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use agent_load::{Plan, Running, Summary};
use anyhow::{Context as _, Result, bail, ensure};
use tests::agent::{Output, upgrade};
use tests::process::Handle;
use tests::servers::{Kind, Released, Server};
use tests::stage::{LIMIT, Stage};
use tests::wait;

use crate::place::Place;

/// A server of a kind goes through all of it, in a namespace of its own.
pub(crate) async fn goes_through_all(kind: Kind, options: &[&str]) -> Result<()> {
    let server = Released::new(kind)?;
    let place = Place::new()?;
    let _first = place.stage.start(&server, 1)?;
    let (clients, others) = (server.address(), BTreeSet::new());
    Procedure { server: &server, options, clients, others }.run(&place.stage).await
}

/// What an operator knows of a server, and where its clients are.
#[derive(Debug)]
pub(crate) struct Procedure<'a> {
    pub(crate) server: &'a Released,
    /// What the operator gives `upgrade` beside the command.
    pub(crate) options: &'a [&'a str],
    /// Where clients connect: to the server, or to one before it.
    pub(crate) clients: SocketAddr,
    /// Processes that are not the server's.
    pub(crate) others: BTreeSet<i32>,
}

impl Procedure<'_> {
    /// Everything, beginning with the attach: version 1 runs.
    pub(crate) async fn run(&self, stage: &Stage) -> Result<()> {
        let (server, port) = (self.server, self.server.port());
        let mut run = Run::begin(stage, self.server.plan(), self.clients)?;
        run.command(&[0], 1, || stage.agent.attach(port))?;
        for generation in 2..LAST {
            let old = self.processes(stage)?;
            let upgraded = || self.upgrade(stage, &[], &server.command(generation)?);
            run.command(&[0], generation, upgraded)?;
            gone(&old)?;
        }
        let kept = self.processes(stage)?;
        let upgraded = || self.upgrade(stage, &["--keep-old", "5m"], &server.command(LAST)?);
        run.command(&[0], LAST, upgraded)?;
        let mut last = self.processes(stage)?;
        last.retain(|pid, _| !kept.contains_key(pid));

        let upgraded = || self.upgrade(stage, &["--timeout", "4s"], &server.broken()?);
        // It never becomes ready, or new connections go back to the one before.
        let broken = run.command(&[5, 8], LAST, upgraded)?;
        stage
            .until("the end of the broken version", port, |service| {
                service.generations.iter().map(|it| it.number.0).eq([LAST - 1, LAST])
            })
            .with_context(|| format!("after {broken:?}"))?;

        let undo = ["undo", "--port", &port.to_string(), "--wait", "drained", "-o", "json"];
        run.command(&[0], LAST - 1, || stage.agent.run(&undo))?;
        gone(&last)?;
        let seen = stage.agent.service(port)?;
        ensure!(seen.steered + seen.plain > 0, "no connection has met our program: {seen:#?}");
        run.end().await
    }

    fn upgrade(&self, stage: &Stage, more: &[&str], argv: &[String]) -> Result<Output> {
        let options = [self.options, more].concat();
        stage.agent.run(&upgrade(self.server.port(), &options, argv))
    }

    /// The processes of the server: all of the namespace that are not known to be others.
    fn processes(&self, stage: &Stage) -> Result<BTreeMap<i32, Handle>> {
        let agent = stage.agent.processes()?;
        let found = stage.namespace.processes()?.into_iter();
        let own = found.filter(|pid| !agent.contains(pid) && !self.others.contains(pid));
        // One of them may end by itself.
        Ok(own.filter_map(|pid| Some((pid, Handle::open(pid).ok()?))).collect())
    }
}

/// Clients, and who was to answer them when.
struct Run {
    clients: Running,
    reigns: Vec<Reign>,
}

/// From the end of one command to the begin of the next one, one generation gets all new connections.
#[derive(Debug)]
struct Reign {
    generation: u32,
    begun: Instant,
    ended: Instant,
}

impl Run {
    fn begin(stage: &Stage, plan: Plan, target: SocketAddr) -> Result<Self> {
        let plan = Plan { target, ..plan.generations(1..=LAST) };
        let mut run = Self { clients: stage.load(plan)?, reigns: Vec::new() };
        run.reign(1)?;
        Ok(run)
    }

    /// Runs a command, which has to end with one of these codes. Then that generation answers new connections.
    fn command(
        &mut self,
        codes: &[i32],
        then: u32,
        act: impl FnOnce() -> Result<Output>,
    ) -> Result<Output> {
        self.close();
        let begun = Instant::now();
        let output = act()?;
        println!("exit code {:?} after {:?}", output.code, begun.elapsed());
        let expected = output.code.is_some_and(|code| codes.contains(&code));
        ensure!(expected, "not {codes:?}: {output:?}\n{}", self.clients.snapshot());
        self.reign(then).with_context(|| format!("after {output:?}"))?;
        Ok(output)
    }

    /// A generation has taken over: it gives some answers.
    fn reign(&mut self, generation: u32) -> Result<()> {
        let now = Instant::now();
        self.reigns.push(Reign { generation, begun: now, ended: now });
        let given = |seen: &Summary| seen.generations().get(&generation).copied().unwrap_or(0);
        let before = given(&self.clients.snapshot());
        wait::until("answers of a generation", LIMIT, || {
            let seen = self.clients.snapshot();
            ensure!(seen.failures() == 0, "clients failed");
            Ok((given(&seen) >= before + ANSWERS).then_some(()))
        })
        .with_context(|| format!("generation {generation}: {}", self.clients.snapshot()))
    }

    fn close(&mut self) {
        if let Some(reign) = self.reigns.last_mut() {
            reign.ended = Instant::now();
        }
    }

    /// Nobody has failed, and everybody was answered by who was to answer.
    async fn end(mut self) -> Result<()> {
        self.close();
        let report = self.clients.stop().await;
        println!("{}", report.summary);
        ensure!(report.summary.failures() == 0, "{}", report.summary);
        for Reign { generation, begun, ended } in &self.reigns {
            let answers =
                || report.observations.iter().filter(|it| (begun..ended).contains(&&it.started));
            ensure!(answers().count() > 0, "nobody asked generation {generation}");
            if let Some(wrong) = answers().find(|it| it.generation != Some(*generation)) {
                bail!("generation {generation} was to answer: {wrong:?}");
            }
        }
        Ok(())
    }
}

/// Waits until processes have ended: a child may take a moment longer than what the agent waits for.
fn gone(processes: &BTreeMap<i32, Handle>) -> Result<()> {
    for (pid, process) in processes {
        let program = process.program().display();
        ensure!(process.ended_within(SOON)?, "process {pid} of `{program}` is left");
    }
    Ok(())
}

/// The last version that works.
const LAST: u32 = 4;
/// So many answers of a generation show that it serves.
const ANSWERS: u64 = 20;
const SOON: Duration = Duration::from_secs(5);
