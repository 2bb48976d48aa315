//! Pins and files that are removed by hand.

use std::fs;

use agent_load::Plan;
use anyhow::{Context as _, Result};
use tests::servers::{Node, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

use crate::{PORT, until_event};

#[tokio::test]
async fn pins_that_are_removed_are_made_again_and_steering_never_stops() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let mut old = stage.connect(server.address())?;
    stage.switch(&server, 2, &[])?;
    let before = stage.traces()?;
    let running = stage.load(Plan { upload: None, ..server.plan().one_shot(100) })?;
    stage::until_answers(&running, 2, 20)?;

    fs::remove_file(stage.agent.links().join("steer"))?;
    until_event(&stage, "/links/steer` was removed, and was made again")?;
    // At once, since the agent would not let `rm -r` come to an end.
    let mut aside = stage.agent.pins().as_os_str().to_owned();
    aside.push("-aside");
    fs::rename(stage.agent.pins(), &aside)?;
    until_event(&stage, "/maps/ENDPOINTS` was removed, and was made again")?;
    fs::remove_dir_all(aside)?;
    wait::until("all that was there", LIMIT, || Ok((stage.traces()? == before).then_some(())))?;
    let answers = running.snapshot().answers();
    stage::until_answers(&running, 2, answers + 100)?;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [2]);
    assert_eq!(stage::ask(&mut old)?, 1);

    // The pins are the real ones: steering goes on without the agent, and the next one goes on from them.
    stage.agent.daemon().context("the agent runs")?.kill()?;
    assert_eq!(stage.generation(server.address())?, 2);
    assert_eq!(stage.agent.attach(PORT)?.success()?.json()?["changed"], false);
    drop(old);
    stage.until_steady(PORT)?;
    stage.detach(PORT)?;
    assert!(!stage.agent.pins().exists());
    Ok(())
}

#[tokio::test]
async fn files_that_are_removed_are_made_again_and_a_waiting_command_goes_on() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    let mut old = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    let upgrade = tests::agent::upgrade(PORT, &[], &server.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage::until_answers(&running, 2, 20)?;

    let runtime = stage.agent.runtime().to_owned();
    for name in ["agent.sock", "state.json", "lock", "agent.pid"] {
        fs::remove_file(runtime.join(name))?;
        until_event(&stage, &format!("/{name}` was removed, and was made again"))?;
    }
    let second = stage.agent.run(&["daemon"])?;
    assert_eq!(second.code, Some(7), "the lock holds again: {second:?}");
    let aside = runtime.with_extension("aside");
    fs::rename(&runtime, &aside)?;
    until_event(&stage, &format!("`{}` was removed, and was made again", runtime.display()))?;
    fs::remove_dir_all(aside)?;
    wait::until("the state file", LIMIT, || Ok(runtime.join("state.json").exists().then_some(())))?;

    // What was written is enough for the next agent, which the waiting command finds by itself.
    stage.agent.daemon().context("the agent runs")?.kill()?;
    assert_eq!(stage.agent.attach(PORT)?.success()?.json()?["changed"], false);
    stage::nobody_noticed(running).await;
    drop(old);
    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    stage.detach(PORT)
}
