//! Clients that keep a connection for ever hold up a patient drain. A server that is told to finish in its own words lets go
//! of them between two requests.

use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use tests::agent::upgrade;
use tests::servers::{Kind, Released, Server as _};
use tests::stage;

use crate::place::Place;
use crate::proxy::{HAPROXY, MASTER};
use crate::python::UVICORN;
use crate::ruby::PUMA;
use crate::web::{APACHE, CADDY, LIGHTTPD};

/// An upgrade ends although a client keeps its connection, which is closed in order; new ones do not notice.
async fn lets_go(kind: Kind, signal: &str, more: &[&str]) -> Result<()> {
    let server = Released::new(kind)?;
    let place = Place::new()?;
    let stage = &place.stage;
    let _first = stage.start(&server, 1)?;
    stage.agent.attach(server.port())?.success()?;
    let mut kept = stage.connect(server.address())?;
    ensure!(stage::ask(&mut kept)? == 1, "the first version keeps a connection");
    let mut plan = server.plan();
    plan.keep_alive = None;
    let clients = stage.load(plan.generations(1..=2))?;
    stage::until_answers(&clients, 1, 20)?;

    let graceful = ["--drain", "graceful", "--drain-signal", signal, "--drain-timeout", "20s"];
    let options = [&graceful[..], more].concat();
    let output = stage.agent.run(&upgrade(server.port(), &options, &server.command(2)?))?;
    output.success()?;
    let end = kept.read(&mut [0]).context("the kept connection")?;
    ensure!(end == 0, "the kept connection is closed, and nothing else is said on it");
    stage::until_answers(&clients, 2, 20)?;
    stage::nobody_noticed(clients).await;
    Ok(())
}

#[tokio::test]
async fn apache_lets_go_at_winch() -> Result<()> {
    lets_go(APACHE, "WINCH", &[]).await
}

#[tokio::test]
async fn lighttpd_lets_go_at_int() -> Result<()> {
    lets_go(LIGHTTPD, "INT", &["--user", "root"]).await
}

#[tokio::test]
async fn haproxy_lets_go_at_usr1() -> Result<()> {
    lets_go(HAPROXY, "USR1", &["--user", "root"]).await
}

#[tokio::test]
async fn haproxy_with_a_master_lets_go_at_usr1() -> Result<()> {
    lets_go(MASTER, "USR1", &["--user", "root"]).await
}

#[tokio::test]
async fn caddy_lets_go_at_term() -> Result<()> {
    lets_go(CADDY, "TERM", &["--also"]).await
}

#[tokio::test]
async fn puma_lets_go_at_term() -> Result<()> {
    lets_go(PUMA, "TERM", &[]).await
}

#[tokio::test]
async fn uvicorn_lets_go_at_term() -> Result<()> {
    lets_go(UVICORN, "TERM", &[]).await
}
