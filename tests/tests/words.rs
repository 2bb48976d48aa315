//! What people are told is so.

use std::time::Duration;

use agent_api::{Explanation, GenerationState, ServiceState};
use agent_ebpf::steering::{ListenerSet, Steering};
use anyhow::{Context as _, Result, anyhow};
use aya::maps::{HashMap, Map, MapData};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::servers::{Inline, Python, Script, Server as _};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

#[test]
fn an_undo_with_nothing_to_go_back_to_is_no_other_change() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let refused = stage.agent.undo(PORT)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("no previous generation"), "{refused:?}");
    Ok(())
}

#[test]
fn a_generation_that_is_dead_is_not_said_to_serve_on() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    first.kill()?;
    stage.until("its death", PORT, |service| service.state == ServiceState::Degraded)?;
    let broken = Script::with(PORT, &["--exit", "3"])?;
    let failed = stage.agent.switch(PORT, &[], &broken.command(2)?)?;
    assert_eq!(failed.code, Some(5), "{failed:?}");
    assert!(failed.stderr.contains("nobody serves"), "{failed:?}");
    Ok(())
}

#[test]
fn the_time_that_was_waited_is_said_as_people_would() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let slow = Script::with(PORT, &["--after", "100"])?;
    let failed = stage.agent.switch(PORT, &["--timeout", "300ms"], &slow.command(2)?)?;
    assert_eq!(failed.code, Some(5), "{failed:?}");
    assert!(failed.stderr.contains("00ms"), "no odd milliseconds: {failed:?}");
    assert!(failed.stderr.contains("generation 1 serves on"), "{failed:?}");
    Ok(())
}

/// What takes the port by itself may be taken in by itself, or wait to be.
#[test]
fn while_somebody_else_serves_nobody_is_said_to_be_refused() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    first.kill()?;
    stage.until("its death", PORT, |service| service.state == ServiceState::Degraded)?;
    let status = || Ok::<_, anyhow::Error>(stage.agent.run(&["status"])?.success()?.stdout);
    assert!(status()?.contains("connections are refused"), "{}", status()?);

    let other = stage.start(&Python::new(PORT)?, 2)?;
    let way = format!("agent upgrade --port {PORT} --pid {}", other.pid());
    let told = wait::until("who serves to be told", LIMIT, || {
        let told = status()?;
        Ok((told.contains(&way) || told.contains("steady")).then_some(told))
    })?;
    assert!(!told.contains("refused"), "{told}");
    if told.contains(&way) {
        let words = ["upgrade", "--port", "8080", "--pid", &other.pid().to_string()];
        stage.agent.run(&words)?.success()?;
        stage.until("the service", PORT, |service| service.state == ServiceState::Steady)?;
    }
    Ok(())
}

#[test]
fn a_server_that_accepts_nothing_is_not_steady() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    let first = Pid::from_raw(first.pid());
    kill(first, Signal::SIGSTOP)?;
    let clients = [stage.connect(server.address())?, stage.connect(server.address())?];
    stage.until("somebody to notice", PORT, |it| {
        let waits = it.waiting.as_ref();
        it.state == ServiceState::Degraded
            && waits.is_some_and(|it| it.connections == 2 && it.longest >= Duration::from_secs(3))
    })?;
    let status = stage.agent.run(&["status", "--exit-code"])?;
    assert_eq!(status.code, Some(11), "{status:?}");
    assert!(status.stdout.contains("2 connections wait to be accepted"), "{status:?}");
    kill(first, Signal::SIGCONT)?;
    stage.until("all to be well", PORT, |it| it.state == ServiceState::Steady)?;
    drop(clients);
    Ok(())
}

/// What was decided is in the agent's memory; what happens is in the kernel's.
#[test]
fn where_a_connection_goes_is_asked_of_the_kernels_map() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &["--settle", "0s", "--keep-old", "1h"])?;
    stage.until("the drain", PORT, |it| {
        stage::generations(it).get(&1).is_some_and(|it| it.state == GenerationState::Standby)
    })?;
    let explained = || -> Result<[u32; 2]> {
        let words = ["explain", "127.0.0.1:8080", "--from", "127.0.0.1:5", "--json"];
        let Explanation { offers, .. } =
            serde_json::from_value(stage.agent.run(&words)?.success()?.json()?)?;
        assert!(offers.iter().all(|offer| !offer.listeners.is_empty()), "{offers:?}");
        let order: Vec<_> = offers.iter().map(|offer| offer.generation.0).collect();
        order.try_into().map_err(|order| anyhow!("{order:?}"))
    };
    assert_eq!(explained()?, [2, 1]);
    let pin = MapData::from_pin(stage.agent.maps().join("SERVICES"))?;
    let mut services: HashMap<_, u32, Steering> = Map::HashMap(pin).try_into()?;
    let (service, steering) = services.iter().next().context("there is one")??;
    let mut standbys = steering.standbys;
    standbys[0] = steering.primary;
    let primary_sets = [ListenerSet::default(); _];
    let other = Steering { primary: steering.standbys[0], standbys, primary_sets, ..steering };
    services.insert(service, other, 0)?;
    assert_eq!(stage.generation(server.address())?, 1);
    assert_eq!(explained()?, [1, 2]);
    services.insert(service, steering, 0)?;
    assert_eq!(explained()?, [2, 1]);
    Ok(())
}

/// One of two endpoints has nobody behind it: which one is said.
const ACCEPTS_ON_ONE: &str = "
listener.bind(('::', port)); listener.listen(128)
other = new_listener(); other.bind(('::', port + 1)); other.listen(128)
if answer == 1:
    import threading
    threading.Thread(target=lambda: [other.accept()[0].close() for _ in iter(int, 1)]).start()
";

#[test]
fn a_version_that_accepts_on_one_of_two_ports_is_told_which() -> Result<()> {
    let server = Inline::new(PORT, ACCEPTS_ON_ONE)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    stage.agent.run(&["attach", "--port", "8080,8081"])?.success()?;
    let failed = stage.agent.switch(PORT, &["--timeout", "3s"], &server.command(2)?)?;
    assert_eq!(failed.code, Some(5), "{failed:?}");
    let which = "nothing on 127.0.0.1:8081, [::1]:8081\n";
    assert!(failed.stderr.contains(which), "{failed:?}");
    Ok(())
}
