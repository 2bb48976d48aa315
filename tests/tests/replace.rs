//! An agent takes over from another one, of the same build or of a newer one: nobody is cut off, and what was begun goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use agent_api::{GenerationState, ServiceView};
use agent_load::Plan;
use anyhow::{Context as _, Result};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;
use tests::agent::{Output, Pending};
use tests::other_build::OtherBuild;
use tests::process::Handle;
use tests::servers::{Nginx, Node, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

fn daemon(stage: &Stage) -> Result<Handle> {
    stage.agent.daemon().context("the agent runs")
}

/// Replaces the agent that runs, and waits until the new one answers and the old one is gone.
fn replace(stage: &Stage) -> Result<(Pending, ServiceView)> {
    let old = daemon(stage)?;
    let mut new = stage.agent.start(&mut stage.agent.command(&["daemon", "--replace"]))?;
    wait::until("the new agent to have taken over", LIMIT, || {
        anyhow::ensure!(!new.has_ended()?, "the new agent ended");
        Ok(stage.agent.daemon().filter(|it| it.pid() != old.pid()).map(drop))
    })?;
    assert!(old.ended_within(LIMIT)?);
    let service = wait::until("the agent to answer", LIMIT, || Ok(stage.agent.service(PORT).ok()))?;
    Ok((new, service))
}

/// What is attached: for each program the link's number, the program's number, and the kernel's hash of its instructions.
fn attached(stage: &Stage) -> Result<BTreeMap<String, (u32, u32, u64)>> {
    let tags: BTreeMap<u32, u64> =
        loaded_programs().filter_map(Result::ok).map(|it| (it.id(), it.tag())).collect();
    let version = fs::read_dir(stage.agent.pins())?.next().context("a version is pinned")??;
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(version.path().join("links"))? {
        let entry = entry?;
        let link = FdLink::from(PinnedLink::from_pin(entry.path())?).info()?;
        let program = link.program_id();
        let tag = tags.get(&program).copied().context("the program is loaded")?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), (link.id(), program, tag));
    }
    Ok(found)
}

#[tokio::test]
async fn during_a_drain_and_while_a_command_waits() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    let upgrade = stage.begin_drain(&server)?;

    let (_new, service) = replace(&stage)?;
    let states: Vec<_> = service.generations.iter().map(|it| it.state).collect();
    assert_eq!(states, [GenerationState::Draining, GenerationState::Primary]);
    stage::until_answers(&running, 2, running.snapshot().answers() + 50)?;
    assert!(first.lives()?, "its flows go on");
    stage::nobody_noticed(running).await;
    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    assert!(!first.lives()?);
    Ok(())
}

#[tokio::test]
async fn builds_with_other_programs_swap_them_without_a_gap() -> Result<()> {
    let server = Node::new(PORT)?;
    let (mut stage, _first) = Stage::attached(&server)?;
    let other = OtherBuild::with_other_programs(stage.agent.binary())?;
    let builds = [other.binary().to_owned(), stage.agent.binary().to_owned()];
    // Both generations listen: a connection that met no program would reach the old one every other time.
    let mut pin = stage.connect(server.address())?;
    stage.switch(&server, 2, &[])?;
    let plan = Plan { keep_alive: None, stream: None, upload: None, ..server.plan() };
    let running = stage.load(plan.one_shot(400).generations(2..=2))?;
    stage::until_answers(&running, 2, 20)?;

    let (first, mut before) = (attached(&stage)?, attached(&stage)?);
    assert_eq!(before.len(), 9, "{before:?}");
    let mut agents = Vec::new();
    for build in builds.iter().cycle().take(6) {
        stage.agent.install(build);
        agents.push(replace(&stage)?.0);
        let after = attached(&stage)?;
        for (name, (link, program, tag)) in &after {
            let (old_link, old_program, old_tag) = before[name];
            assert_ne!((*program, *tag), (old_program, old_tag), "{name}");
            assert_ne!(*tag, old_tag, "{name} is another program");
            // Only a tracing link cannot be given another program.
            let is_tracing = ["track_flows", "follow_fork", "follow_exit"].contains(&&**name);
            assert_eq!(*link != old_link, is_tracing, "{name}");
        }
        let answers = running.snapshot().answers();
        stage::until_answers(&running, 2, answers + 50)?;
        before = after;
    }
    let tags = |it: &BTreeMap<String, (u32, u32, u64)>| -> Vec<u64> {
        it.values().map(|it| it.2).collect()
    };
    assert_eq!(tags(&first), tags(&before), "the first build is back");
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [2]);
    assert_eq!(stage::ask(&mut pin)?, 1);
    // The counts went on through all of them.
    let service = stage.agent.service(PORT)?;
    assert_eq!(stage::generations(&service)[&1].open_flows, 1);
    assert_eq!(service.fallback, 0);
    Ok(())
}

#[tokio::test]
async fn a_hung_agent_is_killed() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    let old = daemon(&stage)?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(old.pid()),
        nix::sys::signal::Signal::SIGSTOP,
    )?;
    let (_new, _) = replace(&stage)?;
    stage.switch(&server, 2, &[])?;
    stage::until_answers(&running, 2, 20)?;
    stage::nobody_noticed(running).await;
    Ok(())
}

#[tokio::test]
async fn a_build_that_the_kernel_refuses_stops_nobody() -> Result<()> {
    let server = Node::new(PORT)?;
    let (mut stage, _first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    let (old, before) = (daemon(&stage)?, attached(&stage)?);
    let (works, traces) = (stage.agent.binary().to_owned(), stage.traces()?);
    let broken = OtherBuild::with_broken_programs(stage.agent.binary())?;

    stage.agent.install(broken.binary());
    let refused: Output = stage.agent.run(&["daemon", "--replace"])?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("left alone"), "{refused:?}");
    assert!(refused.stderr.contains("program steer"), "{refused:?}");
    assert_eq!(daemon(&stage)?.pid(), old.pid());
    assert_eq!(attached(&stage)?, before);
    assert_eq!(stage.traces()?, traces);

    stage.agent.install(&works);
    stage.switch(&server, 2, &[])?;
    stage::until_answers(&running, 2, 20)?;
    stage::nobody_noticed(running).await;
    Ok(())
}

#[test]
fn a_successor_ends_when_its_predecessor_would_have() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let (new, _) = replace(&stage)?;
    stage.agent.detach(PORT)?.success()?;
    new.finish()?.success()?;
    let mut left = stage.traces()?;
    left.retain(|path| path != stage.agent.runtime());
    assert_eq!(left, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn one_in_the_background_returns_when_it_answers() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let old = daemon(&stage)?;
    stage.agent.run(&["daemon", "--replace", "--background"])?.success()?;
    let new = daemon(&stage)?;
    assert!(old.ended_within(LIMIT)? && new.pid() != old.pid());
    let name = fs::read_to_string(format!("/proc/{}/comm", new.pid()))?;
    assert_eq!(name, "agent\n", "it is listed by another name");
    stage.switch(&server, 2, &[])?;
    stage.until_steady(PORT)?;
    stage.detach(PORT)?;
    assert!(new.ended_within(LIMIT)?);
    Ok(())
}

#[test]
fn with_nobody_to_replace_it_just_starts() -> Result<()> {
    let stage = Stage::new()?;
    let daemon = stage.agent.start(&mut stage.agent.command(&["daemon", "--replace"]))?;
    wait::until("the agent to answer", LIMIT, || Ok(stage.agent.status().ok()))?;
    drop(daemon);
    Ok(())
}

#[test]
fn a_start_that_fails_leaves_nothing() -> Result<()> {
    let mut stage = Stage::new()?;
    let before = stage.traces()?;
    let broken = OtherBuild::with_broken_programs(stage.agent.binary())?;
    stage.agent.install(broken.binary());
    let refused = stage.agent.run(&["daemon"])?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert_eq!(stage.traces()?, before);
    Ok(())
}
