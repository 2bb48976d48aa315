//! What a candidate does before it is given anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use agent_api::{EventKind, GenerationState};
use agent_rollout::{Outcome, PortHold};
use anyhow::Result;
use tests::servers::{Script, Server as _};
use tests::stage::{self, Stage};

use super::{PORT, Scene, outcome};

/// The new version listens, and accepts nothing: it is refused, and nobody was given to it.
async fn is_refused(next: &[&str]) -> Result<()> {
    let scene = Scene::new(next)?;
    let waiting = scene.begin(&["--timeout", "4s"])?;
    scene.until_second_is(GenerationState::Starting)?;
    let upgrade = waiting.finish()?;
    assert_eq!(upgrade.code, Some(5), "{upgrade:?}");
    let reason = "it listens, but has accepted nothing within 4s".to_owned();
    assert_eq!(outcome(&upgrade)?, Outcome::NotReady { reason });
    let answers = scene.running.snapshot().generations();
    assert_eq!(answers.keys().collect::<Vec<_>>(), [&1]);
    scene.ends_as_before().await
}

#[tokio::test]
async fn a_master_whose_workers_die_is_refused() -> Result<()> {
    is_refused(&["--prefork"]).await
}

#[tokio::test]
async fn one_that_never_accepts_is_refused() -> Result<()> {
    is_refused(&["--deaf"]).await
}

#[tokio::test]
async fn a_stranger_never_reaches_one_that_is_asked() -> Result<()> {
    let scene = Scene::new(&["--deaf"])?;
    let waiting = scene.begin(&["--timeout", "3s"])?;
    scene.stage.until("it to listen", PORT, |service| {
        service.rollouts.first().is_some_and(|rollout| rollout.listens)
    })?;
    // From the probe's own address, as many as the load brings meanwhile.
    let before = scene.running.snapshot().answers();
    tests::wait::until("answers", stage::LIMIT, || {
        Ok((scene.running.snapshot().answers() > before + 100).then_some(()))
    })?;
    let service = scene.stage.agent.service(PORT)?;
    let second = stage::generations(&service)[&2];
    assert_eq!((second.new_connections, second.open_flows), (0, 0), "a probe is no flow");
    assert_eq!((service.fallback, service.unreached), (0, 0));
    assert_eq!(waiting.finish()?.code, Some(5));
    scene.ends_as_before().await
}

/// The new version is up to it in the end.
async fn is_taken(next: &[&str], options: &[&str]) -> Result<()> {
    let scene = Scene::new(next)?;
    scene.upgrade(options)?.success()?;
    scene.ends_replaced().await
}

#[tokio::test]
async fn one_that_rehearses_its_listeners_first_is_not_ready_before_it_accepts() -> Result<()> {
    is_taken(&["--rehearse", "3"], &[]).await
}

#[tokio::test]
async fn one_that_accepts_later_is_waited_for() -> Result<()> {
    is_taken(&["--accept-after", "1.5"], &[]).await
}

#[tokio::test]
async fn one_that_accepts_only_who_says_something_is_ready() -> Result<()> {
    is_taken(&["--defer"], &[]).await
}

#[tokio::test]
async fn one_on_a_port_of_its_own_is_asked_by_the_public_one() -> Result<()> {
    let scene = Scene::new(&["--accept-after", "0.3"])?;
    let options = ["--user", "nobody", "--wait", "switched", "--drain-idle", "0s"];
    // One that everybody may run.
    let mut command = scene.next.command(2)?;
    "/usr/bin/python3".clone_into(&mut command[0]);
    scene.stage.agent.run(&tests::agent::upgrade(PORT, &options, &command))?.success()?;
    let service = scene.stage.agent.service(PORT)?;
    assert_eq!(stage::generations(&service)[&2].hold, PortHold::Moved);
    scene.ends_replaced().await
}

#[tokio::test]
async fn a_server_that_never_says_anything_is_ready_and_keeps_no_probe() -> Result<()> {
    let silent = Script::with(PORT, &["--silent"])?;
    let good = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&good)?;
    stage.switch(&silent, 2, &[])?;
    stage.until("the probe to be gone", PORT, |service| {
        stage::generations(service)[&2].takes_new_connections
            && stage.flows(PORT).is_ok_and(|it| it.is_empty())
    })?;
    let service = stage.agent.service(PORT)?;
    let second = stage::generations(&service)[&2];
    assert_eq!((second.new_connections, second.open_flows, second.reset_flows), (0, 0, 0));
    Ok(())
}

#[test]
fn one_that_closes_what_it_accepts_is_ready() -> Result<()> {
    let good = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&good)?;
    let closing = Script::with(PORT, &["--hang-up"])?;
    let upgrade = stage.agent.upgrade(PORT, &closing.command(2)?)?.success()?;
    assert_eq!(outcome(&upgrade)?, Outcome::Completed);
    Ok(())
}

#[test]
fn whatever_address_it_is_attached_on_is_asked() -> Result<()> {
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let v6 = "::1".parse::<IpAddr>()?;
    for (bound, from) in
        [("127.0.0.2", elsewhere), ("::1", v6), ("::", v6), ("::", Ipv4Addr::LOCALHOST.into())]
    {
        let script = Script::with(PORT, &["--address", bound, "--accept-after", "0.2"])?;
        let (stage, _first) = Stage::attached(&script)?;
        stage.agent.upgrade(PORT, &script.command(2)?)?.success()?;
        assert_eq!(stage.generation(SocketAddr::new(from, PORT))?, 2, "{bound} from {from}");
        let service = stage.agent.service(PORT)?;
        assert_eq!(service.generations[0].hold, PortHold::Shared);
        let events = stage.agent.run(&["events"])?.success()?;
        assert!(!events.stdout.contains("cannot be asked"), "{events:?}");
    }
    Ok(())
}

#[tokio::test]
async fn one_that_somebody_started_is_asked_too() -> Result<()> {
    let scene = Scene::new(&[])?;
    let deaf = Script::with(9090, &["--deaf"])?;
    let _started = scene.stage.start(&deaf, 2)?;
    let options =
        ["upgrade", "--port", "8080", "-o", "json", "--timeout", "1s", "--listen", "9090"];
    let upgrade = scene.stage.agent.run(&options)?;
    assert_eq!(upgrade.code, Some(5), "{upgrade:?}");
    assert!(upgrade.stderr.contains("has accepted nothing"), "{upgrade:?}");
    scene.ends_as_before().await
}

#[tokio::test]
async fn an_agent_that_was_killed_asks_again() -> Result<()> {
    let scene = Scene::new(&["--accept-after", "2"])?;
    let waiting = scene.begin(&[])?;
    scene.stage.until("it to listen", PORT, |service| {
        service.rollouts.first().is_some_and(|rollout| rollout.listens)
    })?;
    scene.stage.agent.kill_daemon()?;
    scene.stage.agent.start_daemon()?;
    waiting.finish()?.success()?;
    assert!(scene.was_told(EventKind::Switched)?);
    scene.ends_replaced().await
}

#[tokio::test]
async fn that_it_listens_is_enough_where_that_is_asked_for() -> Result<()> {
    let good = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&good)?;
    let deaf = Script::with(PORT, &["--deaf"])?;
    stage.switch(&deaf, 2, &["--ready", "listen"])?;
    let service = stage.agent.service(PORT)?;
    assert!(stage::generations(&service)[&2].takes_new_connections);
    Ok(())
}

/// Not the server is to blame.
#[test]
fn one_that_the_agent_has_no_port_to_ask_from_is_refused_with_the_reason() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.namespace.set("ipv4/ip_local_port_range", "40000 40000")?;
    let _has_the_port = stage.connect(server.address())?;
    let upgrade = tests::agent::upgrade(PORT, &["--timeout", "2s"], &server.command(2)?);
    let upgrade = stage.agent.run(&upgrade)?;
    assert_eq!(upgrade.code, Some(5), "{upgrade:?}");
    assert!(upgrade.stderr.contains("no local port is free"), "{upgrade:?}");
    assert!(upgrade.stderr.contains("sysctl net.ipv4.ip_local_port_range"), "{upgrade:?}");
    stage.detach(PORT)
}
