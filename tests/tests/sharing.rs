//! Sharing a port with connections that were accepted before their listener shared it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};

use agent_rollout::PortHold;
use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use socket2::{Domain, Socket, Type};
use tests::servers::{Script, Server as _};
use tests::stage::{self, Stage};

const PORT: u16 = 8080;
const FIRST: &str = "127.0.0.1";
const SECOND: &str = "127.0.0.2";

/// Sockets of a server without `SO_REUSEADDR` let nobody in beside them.
fn script(addresses: &[&str]) -> Result<Script> {
    let mut options = vec!["--no-reuse-address"];
    options.extend(addresses.iter().flat_map(|address| ["--address", address]));
    Script::with(PORT, &options)
}

fn on(address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse()?, PORT))
}

fn hold(stage: &Stage, generation: u32) -> Result<PortHold> {
    let service = stage.agent.service(PORT)?;
    let known = stage::generations(&service);
    Ok(known.get(&generation).context("the generation is there")?.hold)
}

/// Whether another socket that shares could be bound.
fn admits(stage: &Stage, address: SocketAddr) -> Result<bool> {
    stage.namespace.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        Ok(socket.bind(&address.into()).is_ok())
    })
}

#[tokio::test]
async fn connections_from_before_the_attach_do_not_keep_the_next_generation_from_the_port()
-> Result<()> {
    let server = script(&[FIRST])?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let mut before = stage.connect(on(FIRST)?)?;
    assert_eq!(stage::ask(&mut before)?, 1);
    stage.agent.attach(PORT)?.success()?;
    assert_eq!(stage.agent.service(PORT)?.generations[0].open_flows, 1);
    assert!(admits(&stage, on(FIRST)?)?);

    // A bind of the port that does not share makes the kernel forget.
    drop(stage.namespace.enter(|| Ok(TcpListener::bind((SECOND, PORT))?))?);
    assert!(!admits(&stage, on(FIRST)?)?, "the old connection counts again");

    stage.switch(&server, 2, &[])?;
    assert_eq!(hold(&stage, 2)?, PortHold::Shared);
    let answers = stage.answers(&server, 50).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [2]);
    assert_eq!(stage::ask(&mut before)?, 1);
    drop(before);
    stage.until_steady(PORT)?;
    Ok(())
}

/// The kernel remembers one address only.
#[test]
fn with_such_connections_on_two_addresses_the_next_generation_moves() -> Result<()> {
    let server = script(&[FIRST, SECOND])?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let addresses = [on(FIRST)?, on(SECOND)?];
    let mut before = Vec::new();
    for address in addresses {
        let mut stream = stage.connect(address)?;
        assert_eq!(stage::ask(&mut stream)?, 1);
        before.push(stream);
    }
    stage.agent.attach(PORT)?.success()?;

    stage.switch(&server, 2, &[])?;
    assert_eq!(hold(&stage, 2)?, PortHold::Moved);
    for (address, stream) in addresses.into_iter().zip(&mut before) {
        assert_eq!(stage.generation(address)?, 2);
        assert_eq!(stage::ask(stream)?, 1);
    }
    drop(before);
    stage.until_steady(PORT)?;

    stage.switch(&server, 3, &[])?;
    assert_eq!(hold(&stage, 3)?, PortHold::Shared, "nothing is in the way any more");
    Ok(())
}

/// In the table of connections the kernel's socket iterator takes references that it must not take.
#[test]
fn taking_listeners_over_and_giving_them_back_walks_over_no_connection() -> Result<()> {
    const OPEN: usize = 500;
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let connect = |_| {
        let mut stream = stage.connect(server.address())?;
        stage::ask(&mut stream)?;
        Ok(stream)
    };
    let open: Vec<TcpStream> = (0..OPEN).map(connect).collect::<Result<_>>()?;
    let _stats = enable_stats(Stats::RunTime)?;
    stage.agent.attach(PORT)?.success()?;
    assert_eq!(stage.agent.service(PORT)?.generations[0].open_flows, OPEN as u64);
    stage.switch(&server, 2, &[])?;
    let walked = runs(&stage, "adopt_listeners")?;
    assert!(walked > 0, "two generations were taken over");
    assert!(walked < 50, "{walked} sockets were walked over");
    let flows = runs(&stage, "adopt_flow")?;
    assert!(flows >= OPEN as u64, "{flows} connections were taken over");
    drop(open);
    stage.until_steady(PORT)?;
    let walked = runs(&stage, "adopt_listeners")?;
    assert!(walked < 100, "{walked} sockets were walked over");
    Ok(())
}

/// How often a program of this stage's agent has run since statistics were switched on.
fn runs(stage: &Stage, program: &str) -> Result<u64> {
    let daemon = stage.agent.daemon().context("the agent runs")?;
    let mut held = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid()))? {
        // It may be closed by now.
        let Ok(about) = fs::read_to_string(entry?.path()) else { continue };
        let id = about.lines().find_map(|line| line.strip_prefix("prog_id:"));
        held.extend(id.map(|id| id.trim().parse::<u32>()).transpose()?);
    }
    let programs = loaded_programs().filter_map(Result::ok);
    let mine = programs.filter(|it| held.contains(&it.id()) && it.name_as_str() == Some(program));
    Ok(mine.map(|it| it.run_count()).sum())
}
