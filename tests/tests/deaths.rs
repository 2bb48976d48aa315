//! Any generation dies or goes deaf at any moment of a rollout: who lives serves, and what happened is told.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use agent_api::{GenerationState, RolloutView, ServiceState, ServiceView};
use agent_load::{Plan, Running};
use agent_rollout::Outcome;
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::{Output, Pending};
use tests::process::Handle;
use tests::servers::{Nginx, Node, Script, Server, Started};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// Starts an upgrade in the background.
fn begin(stage: &Stage, server: &dyn Server, generation: u32, options: &[&str]) -> Result<Pending> {
    let arguments = tests::agent::upgrade(PORT, options, &server.command(generation)?);
    stage.agent.start(&mut stage.agent.command(&arguments))
}

fn until_first_is(stage: &Stage, state: GenerationState) -> Result<ServiceView> {
    stage.until("a state of generation 1", PORT, |service| service.generations[0].state == state)
}

fn outcome(output: &Output) -> Result<Outcome> {
    let view: RolloutView = serde_json::from_str(&output.stdout)?;
    view.outcome().cloned().with_context(|| format!("it has not ended: {view:?}"))
}

/// Connections that are open and answered by generation 1.
fn pin(stage: &Stage, server: &dyn Server, count: usize) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = stage.connect(server.address())?;
        assert_eq!(stage::ask(&mut stream)?, 1);
        streams.push(stream);
    }
    Ok(streams)
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(pid), signal)?)
}

/// A server whose drain ends at once, and that is kept after it.
fn kept(server: &Node, time: &str) -> Result<(Stage, Started)> {
    let (stage, mut first) = Stage::attached(server)?;
    let options = ["--keep-old", time];
    let command = tests::agent::upgrade(PORT, &options, &server.command(2)?);
    let upgrade = stage.agent.run(&command)?.success()?;
    assert_eq!(outcome(&upgrade)?, Outcome::Completed);
    assert!(first.lives()?);
    Ok((stage, first))
}

#[test]
fn a_generation_that_is_kept_takes_over_although_it_had_drained() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, mut first) = kept(&server, "1h")?;
    let service = stage.agent.service(PORT)?;
    assert_eq!(service.generations[0].state, GenerationState::Standby);
    assert_eq!(service.state, ServiceState::Steady, "its rollout has ended");
    assert_eq!(stage.generation(server.address())?, 2);

    stage.agent.daemon().context("the agent runs")?.kill()?;
    Handle::open(service.generations[1].pids[0])?.kill()?;
    // No agent runs: the kernel falls back on the very next packet.
    for _ in 0..50 {
        assert_eq!(stage.generation(server.address())?, 1);
    }
    let _daemon = stage.agent.start(&mut stage.agent.command(&["daemon"]))?;
    wait::until("the agent to answer", LIMIT, || Ok(stage.agent.service(PORT).ok()))?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 1);
    assert_eq!(service.unreached, 0);
    assert!(first.lives()?);
    Ok(())
}

#[test]
fn undo_goes_back_to_a_generation_that_is_kept() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, mut first) = kept(&server, "1h")?;
    stage.agent.undo(PORT)?.success()?;
    assert_eq!(stage.generation(server.address())?, 1);
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 1);
    assert!(first.lives()?);
    Ok(())
}

#[test]
fn a_generation_is_kept_no_longer_than_asked_for() -> Result<()> {
    let server = Node::new(PORT)?;
    let begun = Instant::now();
    let (stage, mut first) = kept(&server, "3s")?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    assert!(begun.elapsed() > Duration::from_secs(3));
    assert!(!first.lives()?);
    Ok(())
}

#[test]
fn what_is_queued_is_waited_for_and_counted_and_stays_where_it_is_when_the_new_one_dies()
-> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    send(first.pid(), Signal::SIGSTOP)?;
    let mut queued = Vec::new();
    for _ in 0..3 {
        queued.push(stage.connect(server.address())?);
    }
    let upgrade = begin(&stage, &server, 2, &["--queue-timeout", "60s"])?;
    let service = stage.until("the queue to be waited for", PORT, |service| {
        service.rollouts.iter().any(|rollout| rollout.waited == 3)
    })?;
    assert_eq!(service.generations[0].state, GenerationState::Clearing);
    Handle::open(stage::generations(&service)[&2].pids[0])?.kill()?;
    queued.push(stage.connect(server.address())?);
    send(first.pid(), Signal::SIGCONT)?;
    for stream in &mut queued {
        assert_eq!(stage::ask(stream)?, 1);
    }
    let upgrade = upgrade.finish()?;
    assert_eq!(upgrade.code, Some(8), "{upgrade:?}");
    assert!(matches!(outcome(&upgrade)?, Outcome::RolledBack { .. }));
    let history = stage.agent.run(&["history", "--port", "8080", "-o", "json"])?.success()?;
    let waited = history.json()?["rollouts"][0]["waited"].as_u64();
    // The last one queues where the kernel fell back to, maybe before the agent has made that official.
    assert!(matches!(waited, Some(3 | 4)), "{waited:?}");
    Ok(())
}

/// Clients that read one long answer slowly, so that their server has something to finish.
fn stream(stage: &Stage, server: &dyn Server, generation: u32) -> Result<Running> {
    let plan = Plan { one_shot: None, keep_alive: None, upload: None, ..server.plan() };
    let running = stage.load(plan.stream(1))?;
    stage.until("the stream", PORT, |service| {
        stage::generations(service).get(&generation).is_some_and(|it| it.open_flows == 1)
    })?;
    Ok(running)
}

#[tokio::test]
async fn a_primary_that_closes_its_listener_is_rolled_back_and_finishes_its_flows() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let old = pin(&stage, &server, 1)?;
    let upgrade = begin(&stage, &server, 2, &[])?;
    let service = until_first_is(&stage, GenerationState::Draining)?;
    let stream = stream(&stage, &server, 2)?;
    let master = stage::generations(&service)[&2].pids[0];
    // nginx closes its listeners at once, and finishes what it has.
    send(master, Signal::SIGQUIT)?;
    let upgrade = upgrade.finish()?;
    assert_eq!(upgrade.code, Some(8), "{upgrade:?}");
    assert!(upgrade.stderr.contains("generation 2 closed its listener"), "{upgrade:?}");
    for _ in 0..50 {
        assert_eq!(stage.generation(server.address())?, 1);
    }
    let summary = stream.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    let service = stage.until_steady(PORT)?;
    assert_eq!((service.generations[0].number.0, service.unreached), (1, 0));
    drop(old);
    Ok(())
}

#[tokio::test]
async fn an_old_generation_that_was_told_to_end_does_not_hide_the_death_of_the_new_one()
-> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let stream = stream(&stage, &server, 1)?;
    let options = ["--drain", "graceful", "--drain-signal", "QUIT"];
    let upgrade = begin(&stage, &server, 2, &options)?;
    let service = until_first_is(&stage, GenerationState::Finishing)?;
    for pid in &stage::generations(&service)[&2].pids {
        Handle::open(*pid).and_then(|it| it.kill()).ok();
    }
    let upgrade = upgrade.finish()?;
    assert_eq!(upgrade.code, Some(1), "{upgrade:?}");
    assert_eq!(outcome(&upgrade)?, Outcome::NewDied);
    assert_eq!(stage.agent.service(PORT)?.state, ServiceState::Degraded);
    let summary = stream.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    Ok(())
}

#[test]
fn the_flows_that_an_old_generation_takes_with_it_are_counted() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    let _old = pin(&stage, &server, 5)?;
    let upgrade = begin(&stage, &server, 2, &[])?;
    until_first_is(&stage, GenerationState::Draining)?;
    first.kill()?;
    let upgrade = upgrade.finish()?;
    assert_eq!(upgrade.code, Some(6), "{upgrade:?}");
    assert_eq!(outcome(&upgrade)?, Outcome::OldDied { flows: 5 });
    assert!(upgrade.stderr.contains("5 flows"), "{upgrade:?}");
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    Ok(())
}

#[test]
fn an_agent_that_comes_back_does_not_signal_a_second_time() -> Result<()> {
    let notes = tempfile::tempdir()?;
    let note = notes.path().join("told");
    // It keeps its listener: nothing but what was written down tells that it was told.
    let server = Script::with(PORT, &["--note-term", &note.display().to_string()])?;
    let (stage, mut first) = Stage::attached(&server)?;
    let upgrade = begin(&stage, &server, 2, &["--stop-timeout", "5s"])?;
    wait::until("the signal", LIMIT, || Ok(note.exists().then_some(())))?;
    until_first_is(&stage, GenerationState::Stopping)?;
    stage.agent.daemon().context("the agent runs")?.kill()?;
    let _daemon = stage.agent.start(&mut stage.agent.command(&["daemon"]))?;
    upgrade.finish()?.success()?;
    assert!(!first.lives()?, "it was killed in the end");
    assert_eq!(fs::read_to_string(&note)?, "told\n");
    Ok(())
}
