//! No descriptor is left.

use std::fs;
use std::process::Command;

use agent_api::{GenerationState, ServiceState};
use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tests::process::Handle;
use tests::servers::{Nginx, Script, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

use crate::{PORT, until_event};

/// Takes the agent's descriptors away, all but those that it has; gives them back when dropped.
struct Exhausted {
    agent: Pid,
    before: Rlimit,
}

impl Exhausted {
    fn agent_of(stage: &Stage) -> Result<Self> {
        let number = stage.agent.daemon().context("the agent runs")?.pid();
        let agent = Pid::from_raw(number).context("a process number")?;
        let mut open = Vec::new();
        for entry in fs::read_dir(format!("/proc/{number}/fd"))? {
            open.push(entry?.file_name().to_string_lossy().parse::<u64>()?);
        }
        // The next one that the kernel would give.
        let next = (0..).find(|number| !open.contains(number)).context("a free number")?;
        let before = getrlimit_of(number)?;
        let limit = Rlimit { current: Some(next), maximum: before.maximum };
        prlimit(Some(agent), Resource::Nofile, limit)?;
        Ok(Self { agent, before })
    }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        let limit = Rlimit { current: self.before.current, maximum: self.before.maximum };
        if let Err(error) = prlimit(Some(self.agent), Resource::Nofile, limit) {
            eprintln!("the agent's descriptors are not given back: {error}");
        }
    }
}

/// The limits of open files.
fn getrlimit_of(pid: i32) -> Result<Rlimit> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.context("the limit")?.split_whitespace().map(str::parse);
    let mut next = || numbers.next().context("a number")?.map_err(anyhow::Error::from);
    Ok(Rlimit { current: Some(next()?), maximum: Some(next()?) })
}

fn refused_for_descriptors(stage: &Stage, command: &[String]) -> Result<()> {
    let refused = stage.agent.run(command)?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["Too many open files", "LimitNOFILE="] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn without_descriptors_requests_are_refused_and_the_rest_is_done_later() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    let mut old = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    let upgrade = tests::agent::upgrade(PORT, &[], &server.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage.until("the drain", PORT, |service| {
        service.generations[0].state == GenerationState::Draining
    })?;

    let exhausted = Exhausted::agent_of(&stage)?;
    refused_for_descriptors(&stage, &["status".to_owned()])?;
    refused_for_descriptors(&stage, &tests::agent::upgrade(PORT, &[], &server.command(3)?))?;
    drop(old);
    // At the look at its flows or, if that was just before, at the signal.
    until_event(&stage, "Too many open files")?;
    assert!(first.lives()?);
    let answers = running.snapshot().answers();
    stage::until_answers(&running, 2, answers)?;
    drop(exhausted);

    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    assert!(!first.lives()?);
    stage::nobody_noticed(running).await;
    Ok(())
}

#[test]
fn a_process_that_cannot_be_opened_is_not_taken_for_dead() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let pids = stage.agent.service(PORT)?.generations[0].pids.clone();
    let exhausted = Exhausted::agent_of(&stage)?;
    // Its workers live on.
    Handle::open(pids[0])?.kill()?;
    until_event(&stage, "cannot look at generation 1")?;
    drop(exhausted);
    let service = stage.until("its processes", PORT, |service| {
        service.state == ServiceState::Steady && !service.generations[0].pids.contains(&pids[0])
    })?;
    assert_eq!(service.generations[0].state, GenerationState::Primary);
    assert_eq!(service.generations[0].pids.len(), pids.len() - 1);
    Ok(())
}

#[test]
fn the_agent_takes_all_descriptors_that_it_may_and_generations_do_not() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let first = stage.start(&server, 1)?;
    let mut daemon = stage.agent.command(&["daemon"]);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=300:").arg(daemon.get_program()).args(daemon.get_args());
    daemon = limited;
    let _daemon = stage.agent.start(&mut daemon)?;
    wait::until("the agent", LIMIT, || Ok(stage.agent.status().ok()))?;
    stage.agent.attach(PORT)?.success()?;
    let agent = stage.agent.daemon().context("the agent runs")?.pid();
    let limit = getrlimit_of(agent)?;
    ensure!(limit.maximum > Some(300), "a hard limit as low as that shows nothing");
    assert_eq!(limit.current, limit.maximum);
    stage.switch(&server, 2, &[])?;
    let service = stage.agent.service(PORT)?;
    let second = stage::generations(&service)[&2].pids[0];
    assert_eq!(getrlimit_of(second)?.current, getrlimit_of(first.pid())?.current);
    Ok(())
}
