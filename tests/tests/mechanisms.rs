//! Each mechanism is missed when it is switched off: a right result without it would prove nothing.
//!
//! A running agent holds what is pinned by descriptors too, and a starting one attaches what is missing. So the agent is
//! killed, and the next one is told to leave a program out, which only builds for development do.

use agent_rollout::PortHold;
use anyhow::Result;
use tests::servers::{Go, Node, Server};
use tests::stage::{self, Stage};

const PORT: u16 = 8080;

fn switch_off(stage: &Stage, programs: &[&str]) -> Result<()> {
    stage.agent.kill_daemon()?;
    stage.agent.start_daemon_without(programs)?;
    for program in programs {
        let pin = stage.agent.links().join(program);
        anyhow::ensure!(!pin.exists(), "`{}` is there", pin.display());
    }
    Ok(())
}

#[tokio::test]
async fn without_steering_new_connections_reach_the_old_generation_too() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let mut pin = stage.connect(server.address())?;
    stage.switch(&server, 2, &[])?;
    let with = stage.answers(&server, 100).await?;
    assert_eq!(with.into_keys().collect::<Vec<_>>(), [2]);

    switch_off(&stage, &["steer"])?;
    let by_the_group = stage.answers(&server, 100).await?;
    assert_eq!(by_the_group.into_keys().collect::<Vec<_>>(), [2], "the port's group decides alike");

    stage.switch_off_migrate(PORT)?;
    let without = stage.answers(&server, 100).await?;
    assert_eq!(without.into_keys().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(stage::ask(&mut pin)?, 1);
    Ok(())
}

#[tokio::test]
async fn without_shared_binds_no_new_generation_gets_the_port() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    switch_off(&stage, &["share_bind4", "share_bind6"])?;

    let refused = stage.agent.upgrade(PORT, &server.command(2)?)?;
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("EADDRINUSE"), "{refused:?}");
    let answers = stage.answers(&server, 20).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [1]);
    stage.until_steady(PORT)?;
    Ok(())
}

#[tokio::test]
async fn without_refusing_multipath_tcp_a_go_server_cannot_be_brought_in() -> Result<()> {
    let (server, go) = (Node::new(PORT)?, Go::new(PORT)?);
    let (stage, _first) = Stage::attached(&server)?;
    let mut pin = stage.connect(server.address())?;
    stage.switch(&go, 2, &[])?;
    let service = stage.agent.service(PORT)?;
    assert_eq!(stage::generations(&service)[&2].hold, PortHold::Shared);
    let _second = stage.connect(server.address())?;

    switch_off(&stage, &["refuse_multipath"])?;
    let refused = stage.agent.switch(PORT, &["--timeout", "3s"], &go.command(3)?)?;
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("Multipath TCP"), "{refused:?}");
    let answers = stage.answers(&go, 100).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [2]);
    assert_eq!(stage::ask(&mut pin)?, 1);
    Ok(())
}

#[test]
fn without_tracking_nothing_is_counted_and_no_candidate_is_noticed() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let connect = || (0..5).map(|_| stage.connect(server.address())).collect::<Result<Vec<_>>>();
    let counted = connect()?;
    stage.until("five open flows", PORT, |service| service.generations[0].open_flows == 5)?;
    drop(counted);
    stage.until("no open flow", PORT, |service| service.generations[0].open_flows == 0)?;

    switch_off(&stage, &["track_flows"])?;
    let mut uncounted = connect()?;
    for stream in &mut uncounted {
        assert_eq!(stage::ask(stream)?, 1);
    }
    assert_eq!(stage.flows(PORT)?.len(), 5);
    assert_eq!(stage.agent.service(PORT)?.generations[0].open_flows, 0);

    let unnoticed = stage.agent.switch(PORT, &["--timeout", "2s"], &server.command(2)?)?;
    assert_eq!(unnoticed.code, Some(5), "{unnoticed:?}");
    assert_eq!(stage.generation(server.address())?, 1);
    Ok(())
}
