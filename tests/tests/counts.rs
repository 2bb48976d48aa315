//! The agent's counts are those of the sockets themselves, at every quiet point.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use agent_api::ServiceView;
use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tests::servers::{Nginx, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// Waits until no socket is between two states, and compares the counts.
fn agree(stage: &Stage, expected: usize) -> Result<ServiceView> {
    wait::until("the sockets to be quiet", LIMIT, || {
        Ok((stage.flows(PORT)?.len() == expected).then_some(()))
    })?;
    let service = stage.agent.service(PORT)?;
    let counted: u64 = service.generations.iter().map(|generation| generation.open_flows).sum();
    assert_eq!(counted, expected as u64, "{service:#?}");
    Ok(service)
}

fn short_connection(mut stream: TcpStream) -> Result<()> {
    stream.write_all(b"GET /generation HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.ends_with("1\n"), "{answer}");
    Ok(())
}

#[test]
fn after_ten_thousand_short_connections() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.namespace.enter(|| {
        (0..10_000).try_for_each(|_| short_connection(TcpStream::connect(server.address())?))
    })?;
    let service = agree(&stage, 0)?;
    assert_eq!(service.generations[0].new_connections, 10_000);
    assert_eq!(service.generations[0].reset_flows, 0);
    assert_eq!((service.steered, service.plain, service.fallback), (10_000, 0, 0));
    Ok(())
}

#[test]
fn after_clients_that_reset() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    for number in 0..200 {
        let mut stream = stage.connect(server.address())?;
        if number % 2 == 0 {
            assert_eq!(stage::ask(&mut stream)?, 1);
        }
        // Closing then sends a reset.
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &linger)?;
    }
    let service = agree(&stage, 0)?;
    assert_eq!(service.generations[0].new_connections, 200);
    assert_eq!(service.generations[0].reset_flows, 200);
    Ok(())
}

#[test]
fn with_open_connections_across_two_generations() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let connect = |count: usize, generation: u32| {
        let mut streams =
            (0..count).map(|_| stage.connect(server.address())).collect::<Result<Vec<_>>>()?;
        for stream in &mut streams {
            assert_eq!(stage::ask(stream)?, generation);
        }
        anyhow::Ok(streams)
    };
    let mut old = connect(25, 1)?;
    agree(&stage, 25)?;
    stage.switch(&server, 2, &[])?;
    let new = connect(11, 2)?;
    old.truncate(7);

    let service = agree(&stage, 18)?;
    let open = |number| stage::generations(&service)[&number].open_flows;
    assert_eq!((open(1), open(2)), (7, 11));
    let flows = stage.agent.run(&["flows", "--port", "8080", "-o", "json"])?.success()?.json()?;
    let flows = flows["flows"].as_array().context("flows are a list")?;
    let of = |number| flows.iter().filter(|flow| flow["generation"] == number).count();
    assert_eq!((of(1), of(2), flows.len()), (7, 11, 18));

    drop(old);
    let service = stage.until_steady(PORT)?;
    assert_eq!((service.generations[0].number.0, service.generations[0].open_flows), (2, 11));
    drop(new);
    let service = agree(&stage, 0)?;
    assert_eq!(service.generations[0].new_connections, 11);
    Ok(())
}
