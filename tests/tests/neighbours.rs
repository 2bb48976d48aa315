//! Services beside each other: what goes wrong with one is nothing to the others.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::process::Handle;
use tests::servers::{Script, Server as _, Started};
use tests::stage::{LIMIT, Stage, until_answers};
use tests::wait;

const PORT: u16 = 8080;
const NEIGHBOUR: u16 = 8081;

/// A step of the agent that fails for as long as this lives.
struct Failing(PathBuf);

impl Failing {
    fn always(stage: &Stage, step: &str) -> Result<Self> {
        let faults = stage.agent.runtime().join("faults");
        fs::create_dir_all(&faults)?;
        let armed = faults.join("armed");
        fs::write(&armed, format!("fail-always {step} 0\n"))?;
        Ok(Self(armed))
    }

    fn mend(self) -> Result<()> {
        // The agent may just be looking at it.
        wait::until("the fault to be there", LIMIT, || Ok(fs::remove_file(&self.0).ok()))
    }
}

/// A service that does not end when it is told to, and one beside it.
fn neighbours() -> Result<(Stage, [Script; 2], [Started; 2])> {
    let stubborn = Script::with(PORT, &["--note-term", "/dev/null"])?;
    let (stage, first) = Stage::attached(&stubborn)?;
    let neighbour = Script::new(NEIGHBOUR)?;
    let beside = stage.start(&neighbour, 1)?;
    stage.agent.attach(NEIGHBOUR)?.success()?;
    Ok((stage, [stubborn, neighbour], [first, beside]))
}

#[tokio::test]
async fn what_cannot_be_done_for_one_service_keeps_no_other_one_waiting() -> Result<()> {
    let (stage, [stubborn, neighbour], [first, _beside]) = neighbours()?;
    let first = Handle::open(first.pid())?;
    let failing = Failing::always(&stage, "kill")?;
    let options = ["--stop-timeout", "100ms", "--settle", "0s"];
    stage.switch(&stubborn, 2, &options)?;
    stage.until("the trouble", PORT, |service| !service.troubles.is_empty())?;
    let load = stage.busy(&neighbour)?;
    for generation in 2..=4 {
        stage.switch(&neighbour, generation, &["--keep-old", "1m"])?;
        until_answers(&load, generation, 20)?;
    }
    stage.agent.run(&["undo", "8081", "--wait", "switched"])?.success()?;
    until_answers(&load, 3, 20)?;
    let summary = load.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    ensure!(!first.ended_within(Duration::ZERO)?, "nobody could kill it");
    failing.mend()?;
    ensure!(first.ended_within(LIMIT)?, "it is killed in the end");
    stage.until_steady(PORT)?;
    stage.namespace.clear()
}

/// A service with a generation to go back to.
fn upgraded() -> Result<(Stage, Script, Started)> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &["--keep-old", "1m"])?;
    Ok((stage, server, first))
}

/// It is the operator's way out, and has not happened until the kernel says so.
#[test]
fn an_undo_that_does_not_reach_the_kernel_is_no_success() -> Result<()> {
    let (stage, server, _first) = upgraded()?;
    let failing = Failing::always(&stage, "steer")?;
    let undone = stage.agent.run(&["undo", "8080", "--wait", "switched"])?;
    assert_ne!(undone.code, Some(0), "{undone:#?}");
    assert!(undone.stderr.contains("generation 2 still does"), "{undone:#?}");
    assert_eq!(stage.generation(server.address())?, 2);
    failing.mend()?;
    wait::until("the switch", LIMIT, || {
        Ok((stage.generation(server.address())? == 1).then_some(()))
    })?;
    stage.namespace.clear()
}

#[test]
fn an_undo_does_not_wait_for_a_full_disk() -> Result<()> {
    let (stage, server, _first) = upgraded()?;
    let failing = Failing::always(&stage, "write-state")?;
    stage.agent.run(&["undo", "8080", "--wait", "switched"])?.success()?;
    assert_eq!(stage.generation(server.address())?, 1);
    let status = stage.agent.run(&["status"])?.success()?.stdout;
    assert!(status.contains("until the state is saved"), "{status}");
    failing.mend()?;
    stage.until_steady(PORT)?;
    stage.namespace.clear()
}

/// Servers use them for commands of their own.
#[test]
fn a_real_time_signal_ends_a_generation_like_any_other() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    let first = Handle::open(first.pid())?;
    stage
        .agent
        .run(&tests::agent::upgrade(PORT, &["--drain-signal", "RTMIN+1"], &server.command(2)?))?
        .success()?;
    ensure!(first.ended_within(LIMIT)?);
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains("told to end (signal 35)") && !events.contains("killed"), "{events}");
    stage.detach(PORT)
}

/// A server that was launched by the agent is its child, whoever manages it.
#[test]
fn a_server_that_ends_after_the_detach_leaves_no_zombie() -> Result<()> {
    let (stage, [_stubborn, neighbour], _started) = neighbours()?;
    stage.switch(&neighbour, 2, &[])?;
    stage.until_steady(NEIGHBOUR)?;
    let pid = stage.agent.service(NEIGHBOUR)?.generations[0].pids[0];
    let launched = Handle::open(pid)?;
    stage.agent.detach(NEIGHBOUR)?.success()?;
    launched.kill()?;
    wait::until("its end", LIMIT, || {
        Ok((!PathBuf::from(format!("/proc/{pid}")).exists()).then_some(()))
    })?;
    stage.namespace.clear()
}
