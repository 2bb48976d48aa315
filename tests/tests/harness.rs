//! The stage itself, without the agent: every server serves every class of client, and a killed one is noticed.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use agent_load::{Class, FailureKind, Load, Plan};
use anyhow::Result;
use tests::namespace::Namespace;
use tests::servers::{self, Go, Nginx, Node, Python, Redis, Server};
use tests::stage::LIMIT;
use tests::wait;

const PORT: u16 = 8080;

/// Two seconds without a failure, then a kill that must be counted, or a test without failures would mean nothing.
async fn serves_and_is_missed(server: &dyn Server) -> Result<()> {
    let namespace = Namespace::new()?;
    let mut started = servers::start(server, &namespace, 1)?;
    let plan = server.plan().generations(1..=1).namespace(namespace.descriptor());

    let running = Load::start(plan.clone())?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let report = running.stop().await;
    let summary = &report.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert!(summary.classes.values().all(|class| class.answers > 0), "{summary}");
    assert_eq!(summary.generations(), BTreeMap::from([(1, summary.answers())]), "{summary}");
    assert_eq!(report.stale(report.observations[0].started, 1).len(), 0);

    let running = Load::start(plan)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = running.snapshot();
    assert_eq!(before.failures(), 0, "{before}");
    started.kill()?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let summary = running.stop().await.summary;
    assert!(summary.failures_of(FailureKind::Refused) > 0, "{summary}");
    assert!(summary.classes.values().all(|class| !class.failures.is_empty()), "{summary}");
    if summary.classes.contains_key(&Class::Stream) {
        let cut = &summary.class(Class::Stream).failures[&FailureKind::CutInTheMiddle];
        assert_eq!(cut.count, 2, "{summary}");
    }
    println!("{}: {summary}", server.name());
    Ok(())
}

#[tokio::test]
async fn nginx() -> Result<()> {
    serves_and_is_missed(&Nginx::new(PORT)?).await
}

#[tokio::test]
async fn python() -> Result<()> {
    serves_and_is_missed(&Python::new(PORT)?).await
}

#[tokio::test]
async fn node() -> Result<()> {
    serves_and_is_missed(&Node::new(PORT)?).await
}

#[tokio::test]
async fn redis() -> Result<()> {
    serves_and_is_missed(&Redis::new(PORT)?).await
}

#[tokio::test]
async fn go() -> Result<()> {
    serves_and_is_missed(&Go::new(PORT)?).await
}

#[tokio::test]
async fn the_other_address_family() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = Node::new(PORT)?;
    let _started = servers::start(&server, &namespace, 7)?;
    let mut plan = server.plan().generations(7..=7).namespace(namespace.descriptor());
    plan.target = SocketAddr::from((Ipv6Addr::LOCALHOST, PORT));
    let running = Load::start(plan)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert!(summary.answers() > 50, "{summary}");
    Ok(())
}

#[tokio::test]
async fn a_lack_of_ports_is_the_clients_own_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = Redis::new(PORT)?;
    let _started = servers::start(&server, &namespace, 1)?;
    namespace.set("ipv4/ip_local_port_range", "50000 50003")?;
    let plan = Plan::redis(server.address()).keep_alive(8, Duration::from_millis(20));
    let running = Load::start(plan.namespace(namespace.descriptor()))?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let summary = running.stop().await.summary;
    assert!(summary.failures_of(FailureKind::Local) >= 4, "{summary}");
    assert_eq!(summary.failures(), summary.failures_of(FailureKind::Local), "{summary}");
    Ok(())
}

#[test]
fn a_namespace_sees_only_its_own_listeners() -> Result<()> {
    let (one, other) = (Namespace::new()?, Namespace::new()?);
    let _server =
        one.enter(|| Ok(std::net::TcpListener::bind((tests::namespace::ADDRESS, PORT))?))?;
    assert!(one.listens(PORT)?);
    assert!(!other.listens(PORT)?);
    Ok(())
}

#[test]
fn a_server_that_does_not_start_says_why() -> Result<()> {
    let namespace = Namespace::new()?;
    let redis = Redis::new(PORT)?;
    let _first = servers::start(&redis, &namespace, 1)?;
    let second = format!("{:#}", servers::start(&Nginx::new(PORT)?, &namespace, 2).unwrap_err());
    assert!(second.contains("Address already in use"), "{second}");
    Ok(())
}

/// Servers make daemons that are nobody's children.
#[test]
fn a_namespace_is_cleared_of_its_processes_and_no_others() -> Result<()> {
    let (namespace, other) = (Namespace::new()?, Namespace::new()?);
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", "sleep 1000 & sleep 1000"]);
    let mut inside = namespace.spawn(&mut command)?;
    let mut beside = other.spawn(Command::new("sleep").arg("1000"))?;
    wait::until(
        "three processes",
        LIMIT,
        || Ok((namespace.processes()?.len() == 3).then_some(())),
    )?;
    namespace.clear()?;
    assert!(namespace.processes()?.is_empty());
    assert_eq!(other.processes()?.len(), 1);
    other.clear()?;
    inside.wait()?;
    beside.wait()?;
    Ok(())
}
