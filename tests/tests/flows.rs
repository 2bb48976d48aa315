//! Every flow of a generation is waited for, whatever its port, and nothing that is none.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use agent::host::sock_diag::PATIENCE;
use agent_ebpf::flow::{FlowCounts, GenerationKey};
use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use nix::sys::socket::{setsockopt, sockopt};
use tests::agent::{Pending, upgrade};
use tests::servers::{Node, Script, Server as _};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;
const GREEN: u16 = 9090;

fn to_green() -> SocketAddr {
    ([127, 0, 0, 1], GREEN).into()
}

/// Which generation each flow of the service is of, by the port that it came in at.
fn listed(stage: &Stage) -> Result<Vec<(u64, u16)>> {
    let flows = stage.agent.run(&["flows", "--port", "8080", "-o", "json"])?.success()?.json()?;
    let flows = flows["flows"].as_array().context("flows are a list")?;
    let flow = |flow: &serde_json::Value| {
        let local: SocketAddr = flow["local"].as_str()?.parse().ok()?;
        Some((flow["generation"].as_u64()?, local.port()))
    };
    let mut listed: Vec<_> = flows.iter().filter_map(flow).collect();
    listed.sort_unstable();
    Ok(listed)
}

/// Begins the next upgrade, and waits until generation 2 has nothing left to wait for but its flows.
fn begin_drain_of_2(stage: &Stage, argv: &[String]) -> Result<Pending> {
    let words = upgrade(PORT, &[], argv);
    let upgrade = stage.agent.start(&mut stage.agent.command(&words))?;
    stage.until("generation 3", PORT, |service| {
        stage::generations(service).get(&3).is_some_and(|it| it.takes_new_connections)
    })?;
    Ok(upgrade)
}

#[test]
fn flows_on_a_port_that_only_the_generation_has_are_waited_for() -> Result<()> {
    let (blue, green) = (Script::new(PORT)?, Script::new(GREEN)?);
    let (stage, _blue) = Stage::attached(&blue)?;
    let _green = stage.start(&green, 2)?;
    // Nobody knows yet that this one will be of the service.
    let mut before = stage.connect(to_green())?;
    assert_eq!(stage::ask(&mut before)?, 2);
    let green = GREEN.to_string();
    stage.agent.run(&["upgrade", "--port", "8080", "--listen", &green])?.success()?;
    let mut after = stage.connect(to_green())?;
    assert_eq!(stage::ask(&mut after)?, 2);
    assert_eq!(listed(&stage)?, [(2, GREEN), (2, GREEN)]);

    let upgrade = begin_drain_of_2(&stage, &blue.command(3)?)?;
    for stream in [before, after] {
        // Each by itself is enough to be waited for.
        let mut stream = stream;
        let service = stage.agent.service(PORT)?;
        assert!(stage::generations(&service).contains_key(&2), "{service:#?}");
        assert_eq!(stage::ask(&mut stream)?, 2);
    }
    upgrade.finish()?.success()?;
    stage.until_steady(PORT)?;
    Ok(())
}

/// Makes the kernel's count of a generation one more than there are.
fn count_one_more(stage: &Stage, generation: u32) -> Result<()> {
    let map = MapData::from_pin(stage.agent.maps().join("FLOWS"))?;
    let mut counts: HashMap<_, GenerationKey, FlowCounts> = HashMap::try_from(Map::HashMap(map))?;
    let of_generation = |key: &GenerationKey| key.generation == generation;
    let key = counts.keys().filter_map(Result::ok).find(of_generation).context("its counts")?;
    let now = counts.get(&key, 0)?;
    Ok(counts.insert(key, FlowCounts { opened: now.opened + 1, ..now }, 0)?)
}

#[test]
fn while_the_kernel_counts_more_than_can_be_found_nobody_is_told_to_end() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.agent.upgrade(PORT, &server.command(2)?)?.success()?;
    count_one_more(&stage, 2)?;
    let words = upgrade(PORT, &["--drain-timeout", "3s"], &server.command(3)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&words))?;
    let service = stage.until("the difference to be told", PORT, |service| {
        service.troubles.iter().any(|it| it.contains("the kernel counts 1 flow of generation 2"))
    })?;
    assert!(stage::generations(&service).contains_key(&2));
    let ended = upgrade.finish()?;
    assert_eq!(ended.code, Some(6), "the time to drain was up: {ended:?}");
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.troubles, Vec::<String>::new());
    Ok(())
}

/// Connects clients to a server that accepts nothing, and has all go: half of them close, half of them reset.
fn gone(stage: &Stage, count: usize) -> Result<()> {
    for number in 0..count {
        let client = stage.connect(([127, 0, 0, 1], PORT).into())?;
        if number % 2 == 0 {
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&client, sockopt::Linger, &linger)?;
        }
    }
    Ok(())
}

const PATIENT: [&str; 4] = ["--queue-timeout", "10m", "--drain-timeout", "10m"];

#[test]
fn connections_that_nobody_accepted_and_whose_clients_have_gone_hold_nothing_up() -> Result<()> {
    let (deaf, next) = (Script::with(PORT, &["--deaf"])?, Script::new(PORT)?);
    let (stage, _first) = Stage::attached(&deaf)?;
    gone(&stage, 10)?;
    let begun = Instant::now();
    let words = upgrade(PORT, &PATIENT, &next.command(2)?);
    stage.agent.run(&words)?.success()?;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn among_those_that_have_gone_one_that_waits_is_waited_for() -> Result<()> {
    let (deaf, next) = (Script::with(PORT, &["--deaf"])?, Script::new(PORT)?);
    let (stage, _first) = Stage::attached(&deaf)?;
    gone(&stage, 4)?;
    let waiting: TcpStream = stage.connect(deaf.address())?;
    let words = upgrade(PORT, &PATIENT, &next.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&words))?;
    stage.until("the switch", PORT, |service| service.generations.len() == 2)?;
    wait::until("all to wait for longer than anybody has patience", LIMIT, || {
        let flows = stage.flows(PORT)?;
        let long = |idle: Option<Duration>| idle.is_some_and(|idle| idle > PATIENCE * 2);
        Ok(flows.iter().all(|flow| long(flow.idle)).then_some(()))
    })?;
    let service = stage.agent.service(PORT)?;
    assert!(stage::generations(&service).contains_key(&1), "{service:#?}");
    drop(waiting);
    upgrade.finish()?.success()?;
    Ok(())
}
