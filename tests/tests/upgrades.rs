//! Five upgrades in a row of every server, under load: nobody is cut off, nobody waits, and nobody is moved.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Instant;

use agent_load::{Class, Plan, Report, Running};
use agent_rollout::PortHold;
use anyhow::{Context as _, Result};
use tests::process;
use tests::servers::{Go, Nginx, Node, Python, Redis, Server};
use tests::stage::{self, Stage};

const PORT: u16 = 8080;
const LAST: u32 = 6;

/// A plan's clients, with new connections at a rate that leaves the machine room for the tests beside this one.
fn moderate(server: &dyn Server, target: SocketAddr) -> Plan {
    let mut plan = server.plan().generations(1..=LAST);
    plan.target = target;
    let rate = plan.one_shot.as_ref().map_or(0, |one_shot| one_shot.rate);
    plan.one_shot(rate.min(100))
}

/// A slow reader for each generation: it pins the generation that was the newest when it began.
fn pin(stage: &Stage, server: &dyn Server) -> Result<Option<Running>> {
    if server.plan().stream.is_none() {
        return Ok(None);
    }
    let plan = Plan { one_shot: None, keep_alive: None, upload: None, ..server.plan() };
    Ok(Some(stage.load(plan.stream(1))?))
}

/// What one server went through.
struct Seen {
    /// When the command that brought in generation 2, 3… had returned.
    switched: Vec<(u32, Instant)>,
    /// The most generations that lived at once.
    most_alive: usize,
    reports: Vec<Report>,
    /// What the programs counted.
    by_our_program: u64,
    /// Connections that were begun after the attach had returned.
    new_connections: u64,
}

async fn five_upgrades(server: &dyn Server, targets: &[SocketAddr]) -> Result<Seen> {
    let stage = Stage::new()?;
    let mut first = stage.start(server, 1)?;
    let mut running = Vec::new();
    for target in targets {
        running.push(stage.load(moderate(server, *target))?);
    }
    for run in &running {
        stage::until_answers(run, 1, 20)?;
    }
    stage.agent.attach(PORT)?.success()?;
    let before: u64 = running.iter().map(stage::connections).sum();
    let plain = stage.agent.service(PORT)?.generations[0].hold == PortHold::Plain;

    let mut pins = Vec::new();
    let (mut switched, mut most_alive) = (Vec::new(), 0);
    let mut drained = stage.agent.service(PORT)?.generations[0].pids.clone();
    for generation in 2..=LAST {
        pins.extend(pin(&stage, server)?);
        stage.switch(server, generation, &[])?;
        switched.push((generation, Instant::now()));
        for run in &running {
            stage::until_answers(run, generation, 20)?;
        }
        let service = stage.agent.service(PORT)?;
        most_alive = most_alive.max(service.generations.len());
        if generation < LAST {
            let newest = service.generations.last().context("a generation lives")?;
            drained.extend(&newest.pids);
        }
    }

    let after: u64 = running.iter().map(stage::connections).sum();
    let mut reports = Vec::new();
    for run in running.into_iter().chain(pins) {
        reports.push(run.stop().await);
    }
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, LAST, "{service:#?}");
    assert_eq!((service.fallback, service.unreached), (0, 0), "{service:#?}");
    assert!(!first.lives()?, "generation 1 is told to end when it has drained");
    for pid in drained {
        assert!(!process::runs(pid), "process {pid} is left");
    }
    if plain {
        assert!(service.plain > 0, "the first generation is reached by the kernel's own lookup");
        // The last one has a moved port, because generation 1 held the public one to itself when it was brought in.
        assert_eq!(stage.agent.detach(PORT)?.code, Some(4));
        stage.switch(server, LAST + 1, &[])?;
        stage.until_steady(PORT)?;
    }
    stage.detach(PORT)?;
    Ok(Seen {
        switched,
        most_alive,
        reports,
        by_our_program: service.steered + service.plain,
        new_connections: after - before,
    })
}

fn nobody_noticed(server: &dyn Server, seen: &Seen) {
    for report in &seen.reports {
        let summary = &report.summary;
        println!("{}: {summary}", server.name());
        assert_eq!(summary.failures(), 0, "{summary}");
        for (generation, instant) in &seen.switched {
            let stale = report.stale(*instant, *generation);
            assert!(stale.is_empty(), "after the switch to generation {generation}: {stale:?}");
        }
        if summary.classes.contains_key(&Class::OneShot) {
            let answered: Vec<_> = summary.class(Class::OneShot).generations.into_keys().collect();
            assert_eq!(answered, (1..=LAST).collect::<Vec<_>>(), "{summary}");
        }
    }
    assert!(
        seen.by_our_program >= seen.new_connections,
        "{} of {} new connections were seen by our program",
        seen.by_our_program,
        seen.new_connections
    );
}

async fn nobody_notices_five_upgrades(server: &dyn Server) -> Result<()> {
    let seen = five_upgrades(server, &[server.address()]).await?;
    nobody_noticed(server, &seen);
    assert_eq!(seen.most_alive, LAST as usize, "each generation was pinned by a stream");
    Ok(())
}

#[tokio::test]
async fn nobody_notices_five_upgrades_of_nginx() -> Result<()> {
    nobody_notices_five_upgrades(&Nginx::new(PORT)?).await
}

#[tokio::test]
async fn nobody_notices_five_upgrades_of_python() -> Result<()> {
    nobody_notices_five_upgrades(&Python::new(PORT)?).await
}

#[tokio::test]
async fn nobody_notices_five_upgrades_of_node() -> Result<()> {
    nobody_notices_five_upgrades(&Node::new(PORT)?).await
}

#[tokio::test]
async fn nobody_notices_five_upgrades_of_go_with_multipath_tcp() -> Result<()> {
    nobody_notices_five_upgrades(&Go::new(PORT)?).await
}

#[tokio::test]
async fn nobody_notices_five_upgrades_of_redis_with_two_listeners() -> Result<()> {
    let server = Redis::new(PORT)?;
    let other = SocketAddr::from((Ipv6Addr::LOCALHOST, PORT));
    let seen = five_upgrades(&server, &[server.address(), other]).await?;
    nobody_noticed(&server, &seen);
    Ok(())
}
