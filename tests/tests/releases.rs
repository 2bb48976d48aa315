//! A release has an identity: a deploy that was cut off and runs again brings it once.

use agent_api::{History, ServiceView, Unchanged};
use agent_terms::Release;
use anyhow::{Context as _, Result};
use tests::agent::upgrade;
use tests::servers::{Script, Server as _};
use tests::stage::Stage;

const PORT: u16 = 8080;

fn released(stage: &Stage) -> Result<Vec<(u32, Option<String>)>> {
    let ServiceView { generations, .. } = stage.agent.service(PORT)?;
    Ok(generations.into_iter().map(|it| (it.number.0, it.release.map(String::from))).collect())
}

#[test]
fn a_deploy_that_was_cut_off_is_joined_by_the_next() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    // It never listens by itself: the deploy waits until somebody takes it back.
    let silent = ["/usr/bin/sleep", "600"].map(str::to_owned);
    let words = upgrade(PORT, &["--release", "v2"], &silent);
    let cut = stage.agent.start(&mut stage.agent.command(&words))?;
    stage.until("the candidate", PORT, |it| it.generations.len() == 2)?;
    cut.kill()?;
    let again = stage.agent.start(&mut stage.agent.command(&words))?;
    tests::wait::until("it to be joined", tests::stage::LIMIT, || {
        Ok(again.said()?[1].contains("brings this release already").then_some(()))
    })?;
    assert_eq!(released(&stage)?, [(1, None), (2, Some("v2".to_owned()))]);
    let preview = [&words[..words.len() - 3], &["--dry-run".to_owned()], &words[words.len() - 3..]];
    let preview = stage.agent.run(&preview.concat())?.success()?;
    assert!(preview.stdout.contains("making"), "a dry run waits for nothing: {preview:?}");
    let other = stage.agent.run(&upgrade(PORT, &["--release", "v3"], &silent))?;
    assert_eq!(other.code, Some(7), "{other:?}");
    stage.refused(&["undo", "--port", "8080", "--if-release", "v3"], 7)?;
    stage.agent.run(&["undo", "--port", "8080", "--if-release", "v2"])?.success()?;
    let joined = again.finish()?;
    assert_eq!(joined.code, Some(5), "it has the end of the one it joined: {joined:?}");
    stage.detach(PORT)
}

#[test]
fn what_serves_is_not_brought_again() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let options = ["--release", "v2", "--keep-old", "60s", "--settle", "0s"];
    stage.switch(&server, 2, &options)?;
    let words = upgrade(PORT, &["--release", "v2"], &server.command(3)?);
    let told: Unchanged = serde_json::from_str(&stage.agent.run(&words)?.success()?.stdout)?;
    assert!(!told.changed && told.generation.0 == 2, "{told:?}");
    assert_eq!(released(&stage)?, [(1, None), (2, Some("v2".to_owned()))]);

    stage.refused(&["undo", "--port", "8080", "--if-release", "v1"], 7)?;
    stage.agent.run(&["undo", "--port", "8080", "--if-release", "v2"])?.success()?;
    // What was taken back serves no more: now it is brought anew.
    stage.switch(&server, 3, &["--release", "v2", "--settle", "0s"])?;
    let history = stage.agent.run(&["history", "--port", "8080", "-o", "json"])?.success()?.stdout;
    let history: History = serde_json::from_str(&history)?;
    let release: Release = "v2".parse()?;
    let releases: Vec<_> = history.rollouts.iter().map(|it| it.release.as_ref()).collect();
    assert_eq!(releases, [Some(&release), None, Some(&release)]);
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains("launching generation 3 (release v2)"), "{events}");
    let status = stage.agent.run(&["status"])?.success()?.stdout;
    assert!(status.contains("RELEASE"), "{status}");
    stage.agent.kill_daemon()?;
    stage.agent.start_daemon()?;
    let last = released(&stage)?.pop().context("a generation")?;
    assert_eq!(last, (3, Some("v2".to_owned())), "an agent that starts anew knows it");
    stage.detach(PORT)
}

#[test]
fn a_release_that_cannot_be_shown_is_refused() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let long = "x".repeat(129);
    for bad in ["", "v\n2", &long] {
        let refused = stage.agent.run(&upgrade(PORT, &["--release", bad], &server.command(2)?))?;
        assert_eq!(refused.code, Some(2), "{refused:?}");
    }
    assert_eq!(released(&stage)?, [(1, None)]);
    stage.detach(PORT)
}
