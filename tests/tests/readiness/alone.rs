//! A new generation that has nobody to go back to, because the old one has died: that it is all there is makes it no good one.

use agent_api::{GenerationState, ServiceView};
use agent_rollout::Outcome;
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::process::Handle;
use tests::servers::Script;
use tests::stage::{self, Stage};
use tests::wait;

use super::{PORT, Scene, outcome};

const LONG: &str = "60s";

fn until_it_listens(scene: &Scene) -> Result<()> {
    let listens = |service: &ServiceView| service.rollouts.first().is_some_and(|it| it.listens);
    scene.stage.until("it to listen", PORT, listens).map(drop)
}

#[tokio::test]
async fn one_that_never_accepts_is_no_success_though_the_old_one_died() -> Result<()> {
    let mut scene = Scene::new(&["--deaf"])?;
    let waiting = scene.begin(&["--timeout", "3s"])?;
    until_it_listens(&scene)?;
    scene.first.kill()?;
    let failed = waiting.finish()?;
    assert_eq!(failed.code, Some(5), "{failed:?}");
    let status = scene.stage.agent.run(&["status"])?.success()?.stdout;
    assert!(status.contains("not upgraded"), "{status}");
    scene.stage.namespace.clear()
}

/// Clients wait for it, instead of being refused.
#[tokio::test]
async fn one_that_accepts_later_is_waited_for_though_the_old_one_died() -> Result<()> {
    let mut scene = Scene::new(&["--accept-after", "2"])?;
    let waiting = scene.begin(&["--settle", "1s"])?;
    until_it_listens(&scene)?;
    scene.first.kill()?;
    scene.stage.until("the death", PORT, |service| {
        service.generations.iter().any(|it| it.state == GenerationState::Dead)
    })?;
    assert_eq!(scene.stage.generation(([127, 0, 0, 1], PORT).into())?, 2);
    waiting.finish()?.success()?;
    scene.stage.until_steady(PORT)?;
    scene.stage.namespace.clear()
}

#[tokio::test]
async fn one_that_accepts_no_more_is_no_success_though_the_old_one_died() -> Result<()> {
    let mut scene = Scene::new(&["--accept-only", "50"])?;
    let waiting = scene.begin(&["--settle", LONG])?;
    scene.until_second_is(GenerationState::Primary)?;
    // Or a flow ends with it, and that is what is told.
    scene.until_first_has_no_flows()?;
    scene.first.kill()?;
    let failed = waiting.finish()?;
    assert_eq!(failed.code, Some(5), "{failed:?}");
    let Outcome::NotReady { reason } = outcome(&failed)? else { panic!("{failed:?}") };
    assert!(reason.contains("accepted no more connections"), "{reason}");
    scene.stage.namespace.clear()
}

/// Longer than the new generation has to prove itself.
#[expect(clippy::disallowed_methods, reason = "nothing happens that could be waited for")]
fn be_away() {
    std::thread::sleep(std::time::Duration::from_secs(4));
}

/// What nobody looked at has shown nothing.
#[tokio::test]
async fn one_that_accepts_no_more_while_there_is_no_agent_is_taken_back() -> Result<()> {
    let scene = Scene::new(&["--accept-only", "50"])?;
    let waiting = scene.begin(&["--settle", "3s"])?;
    scene.until_second_is(GenerationState::Primary)?;
    scene.stage.agent.kill_daemon()?;
    be_away();
    scene.stage.agent.start_daemon()?;
    let failed = waiting.finish()?;
    assert_eq!(failed.code, Some(8), "{failed:?}");
    assert_eq!(scene.stage.generation(([127, 0, 0, 1], PORT).into())?, 1);
    scene.stage.namespace.clear()
}

/// Its connections keep it alive, and it may be needed again.
#[test]
fn one_that_was_taken_back_and_listens_again_is_there_to_fall_back_to() -> Result<()> {
    let first = Script::new(PORT)?;
    let second = Script::with(PORT, &["--reopen"])?;
    let (stage, mut started) = Stage::attached(&first)?;
    let mut old = stage.connect(([127, 0, 0, 1], PORT).into())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    stage.switch(&second, 2, &["--keep-old", LONG])?;
    let mut pinned = stage.connect(([127, 0, 0, 1], PORT).into())?;
    assert_eq!(stage::ask(&mut pinned)?, 2);
    let service = stage.agent.service(PORT)?;
    let pid = Pid::from_raw(stage::generations(&service)[&2].pids[0]);
    kill(pid, Signal::SIGUSR1)?;
    stage.until("the way back", PORT, |service| {
        stage::generations(service)[&1].takes_new_connections
    })?;
    kill(pid, Signal::SIGUSR1)?;
    wait::until("its new listener", stage::LIMIT, || {
        let explained = stage.agent.run(&["explain", "127.0.0.1:8080"])?.success()?.stdout;
        Ok((!explained.contains("no live listener")).then_some(()))
    })?;
    let handle = Handle::open(started.pid())?;
    started.kill()?;
    ensure!(handle.ended_within(stage::LIMIT)?);
    stage.until("the second one again", PORT, |service| {
        stage::generations(service).get(&2).is_some_and(|it| it.takes_new_connections)
    })?;
    assert_eq!(stage.generation(([127, 0, 0, 1], PORT).into())?, 2);
    stage.namespace.clear()
}

#[test]
fn one_that_is_kept_and_listens_again_can_be_put_back() -> Result<()> {
    // Whoever was not launched by the agent has to share the port itself.
    let first = Script::with(PORT, &["--reopen", "--reuse-port"])?;
    let (stage, started) = Stage::attached(&first)?;
    stage.switch(&Script::new(PORT)?, 2, &["--settle", "0s", "--keep-old", LONG])?;
    stage.until("the drain", PORT, |service| {
        stage::generations(service)[&1].state == GenerationState::Standby
    })?;
    let listeners = stage.listeners()?.len();
    for left in [listeners - 1, listeners] {
        kill(Pid::from_raw(started.pid()), Signal::SIGUSR1)?;
        wait::until("its listener to close, or open", stage::LIMIT, || {
            Ok((stage.listeners()?.len() == left).then_some(()))
        })?;
    }
    wait::until("the way back", stage::LIMIT, || {
        Ok((stage.agent.undo(PORT)?.code == Some(0)).then_some(()))
    })?;
    assert_eq!(stage.generation(([127, 0, 0, 1], PORT).into())?, 1);
    stage.namespace.clear()
}
