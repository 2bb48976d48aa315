//! An agent starts where less is left than it needs: it builds anew what can be known, and no connection suffers.

use std::fs;
use std::path::PathBuf;

use agent::api::{GenerationState, ServiceView};
use agent::load::{Plan, Running};
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

fn kill(stage: &Stage) -> Result<()> {
    stage.agent.daemon().context("the agent runs")?.kill()
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
    kill(&stage)?;
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
    kill(&stage)?;
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
    kill(&stage)?;
    fs::remove_dir_all(stage.agent.pins())?;
    // Now the kernel's own lookup gives each of them some.
    stage::until_answers(&running, 1, 20)?;

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
        kill(&stage)?;
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

#[test]
fn a_removed_cgroup_is_attached_to_again() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    kill(&stage)?;
    fs::remove_dir(stage.agent.cgroup())?;
    let (_daemon, _) = start(&stage)?;
    // Its bind is helped again.
    let _pin = stage.connect(server.address())?;
    stage.switch(&server, 2, &[])?;
    assert_eq!(stage.generation(server.address())?, 2);
    Ok(())
}
