//! What a new primary does right after the switch.

use agent_api::{EventKind, GenerationState};
use agent_rollout::{Outcome, Status, UNDONE};
use anyhow::Result;
use tests::stage;

use super::{PORT, Scene, outcome};

/// Much longer than anything here takes.
const LONG: &str = "60s";

async fn goes_back(next: &[&str], options: &[&str], reason: &str) -> Result<()> {
    let scene = Scene::new(next)?;
    let upgrade = scene.upgrade(options)?;
    assert_eq!(upgrade.code, Some(8), "{upgrade:?}");
    let rolled_back = Outcome::RolledBack { reason: reason.to_owned() };
    assert_eq!(outcome(&upgrade)?, rolled_back);
    assert_eq!(scene.last_rollout()?.status, Status::Ended(rolled_back));
    assert!(!scene.was_told(EventKind::Settled)?);
    scene.ends_as_before().await
}

#[tokio::test]
async fn one_that_dies_at_once_is_taken_back() -> Result<()> {
    goes_back(&["--die-after", "0.1"], &["--settle", LONG], "generation 2 died").await
}

#[tokio::test]
async fn one_that_dies_a_moment_later_is_taken_back_whatever_the_drain() -> Result<()> {
    let options = ["--settle", LONG, "--drain", "graceful"];
    goes_back(&["--die-after", "0.5"], &options, "generation 2 died").await
}

#[tokio::test]
async fn one_that_dies_while_it_is_still_watched_is_taken_back() -> Result<()> {
    let options = ["--settle", LONG, "--drain-timeout", "100ms"];
    goes_back(&["--die-after", "2"], &options, "generation 2 died").await
}

#[tokio::test]
async fn one_that_only_lets_them_wait_is_taken_back_and_they_are_served() -> Result<()> {
    let options = ["--ready", "listen", "--settle", LONG];
    goes_back(&["--deaf"], &options, "generation 2 accepted no more connections").await
}

#[tokio::test]
async fn one_that_settles_is_followed_as_far_as_wanted() -> Result<()> {
    let scene = Scene::new(&[])?;
    let upgrade = scene.upgrade(&["--settle", "1s", "--wait", "settled"])?.success()?;
    let view: agent_api::RolloutView = serde_json::from_str(&upgrade.stdout)?;
    assert_ne!(view.status, Status::Settling);
    assert!(scene.was_told(EventKind::Settled)?);
    scene.ends_replaced().await
}

#[tokio::test]
async fn undo_does_not_wait_until_it_has_settled() -> Result<()> {
    let scene = Scene::new(&[])?;
    let waiting = scene.begin(&["--settle", LONG])?;
    scene.until_second_is(GenerationState::Primary)?;
    scene.stage.agent.undo(PORT)?.success()?;
    let upgrade = waiting.finish()?;
    assert_eq!(upgrade.code, Some(8), "{upgrade:?}");
    assert_eq!(outcome(&upgrade)?, Outcome::RolledBack { reason: UNDONE.to_owned() });
    let service = scene.stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 1);
    stage::nobody_noticed(scene.running).await;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_was_killed_goes_on_watching() -> Result<()> {
    let scene = Scene::new(&[])?;
    let waiting = scene.begin(&["--settle", LONG])?;
    scene.until_second_is(GenerationState::Primary)?;
    scene.stage.agent.kill_daemon()?;
    scene.stage.agent.start_daemon()?;
    let service = scene.stage.agent.service(PORT)?;
    assert_eq!(service.rollouts[0].status, Status::Settling);
    let second = stage::generations(&service)[&2].pids[0];
    tests::process::Handle::open(second)?.kill()?;
    assert_eq!(waiting.finish()?.code, Some(8));
    let service = scene.stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 1);
    Ok(())
}

#[tokio::test]
async fn what_was_said_before_it_failed_is_corrected() -> Result<()> {
    let scene = Scene::new(&[])?;
    let upgrade = scene.upgrade(&["--settle", "0s", "--keep-old", LONG])?.success()?;
    assert_eq!(outcome(&upgrade)?, Outcome::Completed);
    let service = scene.stage.agent.service(PORT)?;
    tests::process::Handle::open(stage::generations(&service)[&2].pids[0])?.kill()?;
    let service = scene.stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 1);
    let reason = "generation 2 died".to_owned();
    let rolled_back = Status::Ended(Outcome::RolledBack { reason });
    assert_eq!(scene.last_rollout()?.status, rolled_back);
    assert_eq!(service.setback.map(|it| it.status), Some(rolled_back));
    Ok(())
}
