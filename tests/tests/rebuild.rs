//! An agent starts where less is left than it needs: it builds anew what can be known, and no connection suffers.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent_api::{GenerationState, ServiceView};
use agent_load::{Plan, Running};
use anyhow::{Context as _, Result};
use aya::programs::links::{FdLink, PinnedLink};
use tests::agent::Pending;
use tests::servers::{Nginx, Node, Server, Started};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// The one directory of pins: `vN`.
fn version(stage: &Stage) -> Result<PathBuf> {
    let versions: Vec<_> = fs::read_dir(stage.agent.pins())?.collect::<Result<_, _>>()?;
    anyhow::ensure!(versions.len() == 1, "{versions:?}");
    Ok(versions[0].path())
}

fn start(stage: &Stage) -> Result<(Pending, ServiceView)> {
    let mut daemon = stage.agent.start(&mut stage.agent.command(&["daemon"]))?;
    let service = wait::until("the agent to answer", LIMIT, || {
        anyhow::ensure!(!daemon.has_ended()?, "the agent ended");
        Ok(stage.agent.service(PORT).ok())
    })?;
    Ok((daemon, service))
}

/// Generation 2 serves and generation 1 drains, because of the connection in the answer.
fn draining(server: &dyn Server) -> Result<(Stage, Started, std::net::TcpStream)> {
    let (stage, first) = Stage::attached(server)?;
    let mut pin = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut pin)?, 1);
    stage.switch(server, 2, &[])?;
    stage.until("the drain", PORT, |service| {
        service.generations[0].state == GenerationState::Draining
    })?;
    Ok((stage, first, pin))
}

fn new_connections(stage: &Stage, server: &dyn Server) -> Result<Running> {
    let plan = Plan { keep_alive: None, stream: None, upload: None, ..server.plan() };
    stage.load(plan.one_shot(400))
}

fn events(stage: &Stage) -> Result<String> {
    Ok(stage.agent.run(&["events"])?.success()?.stdout)
}

/// After the start everything is as if nothing had happened: generation 1 ends with its last connection, and the next upgrade
/// works.
fn goes_on(stage: &Stage, server: &dyn Server, pin: &mut std::net::TcpStream) -> Result<()> {
    assert_eq!(stage::ask(pin)?, 1);
    let service = stage.agent.service(PORT)?;
    assert_eq!(stage::generations(&service)[&1].open_flows, 1, "{service:#?}");
    pin.shutdown(std::net::Shutdown::Both)?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    stage.switch(server, 3, &[])?;
    assert_eq!(stage.generation(server.address())?, 3);
    Ok(())
}

#[tokio::test]
async fn pins_of_an_older_version_are_relieved_without_a_gap() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first, mut pin) = draining(&server)?;
    let running = new_connections(&stage, &server)?;
    stage::until_answers(&running, 2, 50)?;
    stage.agent.kill_daemon()?;
    let ours = version(&stage)?;
    let older = ours.with_file_name(format!("v{}", agent_ebpf::SCHEMA - 1));
    fs::rename(&ours, &older)?;
    let link = FdLink::from(PinnedLink::from_pin(older.join("links/steer"))?);
    let before = link.info()?.program_id();

    let (_daemon, service) = start(&stage)?;
    assert_eq!(version(&stage)?, ours);
    assert_ne!(link.info()?.program_id(), before, "the same link has another program");
    let states: Vec<_> = service.generations.iter().map(|it| it.state).collect();
    assert_eq!(states[1], GenerationState::Primary);
    let answers = running.snapshot().answers();
    stage::until_answers(&running, 2, answers + 100)?;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [2]);
    assert!(events(&stage)?.contains("schema version"), "{}", events(&stage)?);
    let steered = stage.agent.service(PORT)?;
    assert!(steered.steered >= 100 && steered.fallback == 0, "{steered:#?}");
    goes_on(&stage, &server, &mut pin)
}

#[tokio::test]
async fn a_start_that_was_killed_while_it_built_is_done_again() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first, mut pin) = draining(&server)?;
    stage.agent.kill_daemon()?;
    // As far as one may have come: the links are in the new place, the old one is gone.
    let ours = version(&stage)?;
    let building = PathBuf::from(format!("{}-new", ours.display()));
    fs::rename(&ours, &building)?;
    let running = new_connections(&stage, &server)?;
    stage::until_answers(&running, 2, 50)?;
    let (_daemon, _) = start(&stage)?;
    assert_eq!(version(&stage)?, ours);
    let answers = running.snapshot().answers();
    stage::until_answers(&running, 2, answers + 100)?;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [2]);
    goes_on(&stage, &server, &mut pin)
}

#[tokio::test]
async fn pins_that_are_gone_are_made_again_from_the_state() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first, mut pin) = draining(&server)?;
    let running = stage.load(Plan { upload: None, ..server.plan() }.one_shot(200))?;
    stage::until_answers(&running, 2, 50)?;
    stage.agent.kill_daemon()?;
    fs::remove_dir_all(stage.agent.pins())?;
    // What is left is the program of the listeners' reuseport group, and the kernel's own lookup.
    let answers = running.snapshot().answers();
    wait::until("answers meanwhile", LIMIT, || {
        Ok((running.snapshot().answers() > answers + 50).then_some(()))
    })?;

    let (_daemon, _) = start(&stage)?;
    assert!(events(&stage)?.contains("was gone"), "{}", events(&stage)?);
    let running_new = new_connections(&stage, &server)?;
    stage::until_answers(&running_new, 2, 100)?;
    let summary = running_new.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [2]);
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    stage.until("the flows of the clients to be gone", PORT, |service| {
        service.generations[0].open_flows == 1
    })?;
    goes_on(&stage, &server, &mut pin)
}

#[tokio::test]
async fn one_pin_that_is_gone_is_enough_to_build_anew() -> Result<()> {
    let server = Node::new(PORT)?;
    for pin in ["links/track_flows", "maps/SERVICES", "links/share_bind4"] {
        let (stage, _first, mut stream) = draining(&server)?;
        let running = new_connections(&stage, &server)?;
        stage::until_answers(&running, 2, 20)?;
        stage.agent.kill_daemon()?;
        fs::remove_file(version(&stage)?.join(pin))?;
        let (_daemon, _) = start(&stage)?;
        assert!(events(&stage)?.contains(pin), "{}", events(&stage)?);
        let answers = running.snapshot().answers();
        stage::until_answers(&running, 2, answers + 50)?;
        let summary = running.stop().await.summary;
        assert_eq!(summary.failures(), 0, "{summary}");
        assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [2], "{pin}");
        goes_on(&stage, &server, &mut stream)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_listener_on_another_port_is_led_to_again() -> Result<()> {
    let (server, other) = (Node::new(PORT)?, Node::new(PORT + 1)?);
    let (stage, _first) = Stage::attached(&server)?;
    let mut pin = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut pin)?, 1);
    let _second = stage.start(&other, 2)?;
    let (public, moved) = (PORT.to_string(), (PORT + 1).to_string());
    let upgrade = ["upgrade", "--port", &public, "--wait", "switched", "--listen", &moved];
    stage.agent.run(&upgrade)?.success()?;
    assert_eq!(stage.generation(server.address())?, 2);
    stage.agent.kill_daemon()?;
    fs::remove_dir_all(stage.agent.pins())?;

    let (_daemon, service) = start(&stage)?;
    assert_eq!(stage::generations(&service)[&2].hold, agent_rollout::PortHold::Moved);
    let answers = stage.answers(&server, 20).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [2]);
    // Not by the program of the first one's reuseport group, which was there all the while.
    let steered = stage.agent.service(PORT)?;
    assert!(steered.steered >= 20 && steered.unreached == 0, "{steered:#?}");
    stage.agent.kill_daemon()?;

    // The state may be gone as well, if the pins are there.
    fs::remove_file(stage.agent.runtime().join("state.json"))?;
    let service = repair(&stage)?;
    assert_eq!(stage::generations(&service)[&2].hold, agent_rollout::PortHold::Moved);
    assert_eq!(stage.generation(server.address())?, 2);
    assert_eq!(stage::ask(&mut pin)?, 1);
    Ok(())
}

#[test]
fn a_removed_cgroup_is_attached_to_again() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.agent.kill_daemon()?;
    fs::remove_dir(stage.agent.keeper()?)?;
    fs::remove_dir(stage.agent.cgroup())?;
    let (_daemon, _) = start(&stage)?;
    // Its bind is helped again.
    let _pin = stage.connect(server.address())?;
    stage.switch(&server, 2, &[])?;
    assert_eq!(stage.generation(server.address())?, 2);
    Ok(())
}

/// Repairs, and waits until the agent that was started answers.
fn repair(stage: &Stage) -> Result<ServiceView> {
    let repaired = stage.agent.run(&["doctor", "--repair", "-o", "json"])?.success()?.json()?;
    assert_eq!(repaired["changed"], true, "{repaired}");
    stage.agent.service(PORT)
}

/// What the doctor says about what an agent left.
fn verdict(stage: &Stage) -> Result<(String, String)> {
    let diagnosis = stage.agent.run(&["doctor", "-o", "json"])?.json()?;
    let checks = diagnosis["checks"].as_array().context("the answer has checks")?;
    let check = checks.iter().find(|it| it["name"] == "services").context("it is checked")?;
    Ok((check["verdict"].to_string(), check["detail"].to_string()))
}

#[tokio::test]
async fn a_state_that_is_gone_is_derived_from_what_runs() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first, mut pin) = draining(&server)?;
    let mut second = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut second)?, 2);
    let running = new_connections(&stage, &server)?;
    stage::until_answers(&running, 2, 20)?;
    let before = stage.agent.service(PORT)?;
    let asked = Instant::now();
    stage.agent.kill_daemon()?;
    let state = stage.agent.runtime().join("state.json");
    fs::remove_file(&state)?;

    let refused = stage.agent.run(&["daemon"])?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("doctor --repair"), "{refused:?}");
    let (verdict, detail) = verdict(&stage)?;
    assert!(verdict.contains("missing") && detail.contains("is gone"), "{verdict} {detail}");

    let after = repair(&stage)?;
    let passed = asked.elapsed();
    assert_eq!(after.name, before.name);
    assert_eq!(after.endpoints, before.endpoints);
    for (old, new) in before.generations.iter().zip(&after.generations) {
        assert_eq!((new.number, new.launched, new.hold), (old.number, old.launched, old.hold));
        assert_eq!((&new.pids, &new.listeners), (&old.pids, &old.listeners));
        assert_eq!(
            (&new.command, new.takes_new_connections),
            (&old.command, old.takes_new_connections)
        );
        assert!(new.age.abs_diff(old.age + passed) < Duration::from_secs(2), "{new:?}");
    }
    assert_eq!(after.generations.len(), 2);
    let answers = running.snapshot().answers();
    stage::until_answers(&running, 2, answers + 50)?;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [2]);
    assert_eq!(stage::ask(&mut second)?, 2);
    goes_on(&stage, &server, &mut pin)
}

#[tokio::test]
async fn a_damaged_state_is_put_aside_and_derived_anew() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let running = stage.load(Plan { upload: None, ..server.plan() }.one_shot(100))?;
    stage::until_answers(&running, 1, 20)?;
    stage.agent.kill_daemon()?;
    let state = stage.agent.runtime().join("state.json");
    let text = fs::read_to_string(&state)?;
    fs::write(&state, &text[..text.trim_end().len() / 2])?;
    let refused = stage.agent.run(&["daemon"])?;
    assert_eq!(refused.code, Some(4), "{refused:?}");

    let service = repair(&stage)?;
    assert!(service.generations[0].takes_new_connections);
    assert_eq!(
        fs::read_to_string(state.with_extension("json.damaged"))?,
        text[..text.trim_end().len() / 2]
    );
    stage.switch(&server, 2, &[])?;
    stage::until_answers(&running, 2, 20)?;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    Ok(())
}

#[test]
fn repairing_what_is_whole_changes_nothing() -> Result<()> {
    let stage = Stage::new()?;
    let nothing = |stage: &Stage| -> Result<()> {
        let before = stage.traces()?;
        let repaired = stage.agent.run(&["doctor", "--repair", "-o", "json"])?.success()?.json()?;
        assert_eq!(repaired["changed"], false, "{repaired}");
        assert_eq!(stage.traces()?, before);
        Ok(())
    };
    nothing(&stage)?;
    let server = Node::new(PORT)?;
    let _first = stage.start(&server, 1)?;
    stage.agent.attach(PORT)?.success()?;
    nothing(&stage)?;

    // With both gone nothing is known, and nothing steers; with the pins gone the state knows all.
    stage.agent.kill_daemon()?;
    fs::remove_dir_all(stage.agent.pins())?;
    let service = repair(&stage)?;
    assert_eq!(service.generations[0].number.0, 1);
    nothing(&stage)
}

#[test]
fn what_nobody_needs_is_removed() -> Result<()> {
    let server = Node::new(PORT)?;
    let stage = Stage::new()?;
    let first = stage.start(&server, 1)?;
    stage.agent.attach(PORT)?.success()?;
    stage.agent.kill_daemon()?;
    // Nothing lives that the pins could be for.
    drop(first);
    fs::remove_file(stage.agent.runtime().join("state.json"))?;
    let repaired = stage.agent.run(&["doctor", "--repair", "-o", "json"])?.success()?.json()?;
    assert_eq!(repaired["changed"], true, "{repaired}");
    let mut left = stage.traces()?;
    left.retain(|path| path != stage.agent.runtime() && !path.ends_with("agent.log"));
    assert_eq!(left, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn what_steers_another_namespace_is_left_alone() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.agent.kill_daemon()?;
    fs::remove_file(stage.agent.runtime().join("state.json"))?;
    let before = stage.traces()?;
    let elsewhere = tests::namespace::Namespace::new()?;
    let output = elsewhere.output(&mut stage.agent.command(&["doctor", "--repair"]))?;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("another network namespace"));
    let mut after = stage.traces()?;
    after.retain(|path| !path.ends_with("lock"));
    assert!(
        before.iter().filter(|path| !path.ends_with("lock")).eq(&after),
        "{before:?} {after:?}"
    );
    assert_eq!(repair(&stage)?.generations[0].number.0, 1);
    Ok(())
}
