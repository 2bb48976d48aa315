//! The agent is killed at the worst moment: nobody is cut off, and the next one goes on from there.

use agent_api::{GenerationState, ServiceView};
use agent_ebpf::{
    flow::{GenerationKey, LISTENER, Tag},
    socket::{ADOPT, Adoption, NOT_SEEN},
    steering::{ListenerSet, ListenerSetKey},
};
use agent_load::Running;
use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use tests::agent::Pending;
use tests::servers::{Nginx, Node, Script, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

fn start_again(stage: &Stage) -> Result<ServiceView> {
    stage.agent.start_daemon()?;
    stage.agent.service(PORT)
}

#[tokio::test]
async fn in_steady_state() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    let before = stage.agent.service(PORT)?;
    stage.agent.kill_daemon()?;
    let answers = running.snapshot().answers();
    stage::until_answers(&running, 1, answers + 100)?;

    let after = start_again(&stage)?;
    assert_eq!(after.name, before.name);
    assert_eq!(after.generations[0].pids, before.generations[0].pids);
    assert_eq!(after.generations[0].listeners, before.generations[0].listeners);
    assert!(after.steered > before.steered, "steering went on without an agent");
    let events = stage.agent.run(&["events", "-o", "json"])?.success()?.stdout;
    assert!(!events.contains("warning"), "nothing happened that anybody should look at: {events}");
    stage.switch(&server, 2, &[])?;
    stage::until_answers(&running, 2, 20)?;
    stage::nobody_noticed(running).await;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    // What was counted while no agent ran is not lost: at a quiet point the counts are the sockets' again.
    assert_eq!(stage.flows(PORT)?.len() as u64, service.generations[0].open_flows);
    Ok(())
}

#[test]
fn attach_starts_an_agent_that_goes_on() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &[])?;
    stage.until_steady(PORT)?;
    stage.agent.kill_daemon()?;
    let again = stage.agent.attach(PORT)?.success()?.json()?;
    assert_eq!(again["changed"], false);
    let service = stage.agent.service(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    assert_eq!(stage.generation(server.address())?, 2);
    stage.detach(PORT)
}

/// What steers would steer on after a detach, and nobody would know of it.
#[test]
fn none_goes_on_with_other_pins_or_groups_than_those_that_are_there() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let refused = |option: &str, place: &std::path::Path, words: &[&str]| {
        let other = format!("{}-other", place.display());
        let output = stage.agent.run(&[words, &[option, &other]].concat())?;
        let fix = format!("give `{option} {}`", place.display());
        let told = [&*output.stdout, &*output.stderr].concat();
        anyhow::ensure!(output.code == Some(4) && told.contains(&fix), "{words:?}: {output:?}");
        anyhow::ensure!(!std::path::Path::new(&other).exists(), "{other} was made");
        Ok(())
    };
    let (pins, group) = (stage.agent.pins(), stage.agent.cgroup());
    for (option, place) in [("--pin-dir", pins), ("--cgroup", group)] {
        let runs = stage.agent.daemon().context("it runs")?.pid();
        refused(option, place, &["daemon", "--replace"])?;
        assert_eq!(stage.agent.daemon().map(|it| it.pid()), Some(runs), "it was left alone");
        stage.agent.kill_daemon()?;
        for words in
            [&["attach", "--port", "8080"][..], &["daemon"], &["doctor"], &["doctor", "--repair"]]
        {
            refused(option, place, words)?;
        }
        assert_eq!(stage.agent.attach(PORT)?.success()?.json()?["changed"], false);
    }
    // One that was written by an earlier agent does not say where.
    stage.agent.kill_daemon()?;
    let path = stage.agent.runtime().join("state.json");
    let mut state = serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path)?)?;
    state.as_object_mut().context("a state")?.remove("whereabouts").context("it says where")?;
    std::fs::write(&path, state.to_string())?;
    assert_eq!(stage.agent.attach(PORT)?.success()?.json()?["changed"], false);
    stage.agent.detach(PORT)?.success()?;
    assert!(!pins.exists() && !group.exists(), "something is left");
    Ok(())
}

#[tokio::test]
async fn during_a_drain() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    // Waits across the restart.
    let upgrade = stage.begin_drain(&server)?;
    stage.agent.kill_daemon()?;
    stage::until_answers(&running, 2, 50)?;

    let service = start_again(&stage)?;
    let states: Vec<_> = service.generations.iter().map(|it| it.state).collect();
    assert_eq!(states, [GenerationState::Draining, GenerationState::Primary]);
    assert!(first.lives()?, "its flows go on");
    stage::nobody_noticed(running).await;
    upgrade.finish()?.success()?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    assert!(!first.lives()?);
    Ok(())
}

/// Kills the agent while a candidate that needs some seconds is made ready.
async fn killed_while_made_ready(
    candidate: &Script,
    meanwhile: impl FnOnce(&Stage) -> Result<()>,
) -> Result<(Stage, tests::servers::Started, Running, Pending)> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    let running = stage.load(server.plan())?;
    stage::until_answers(&running, 1, 20)?;
    // Not in the directory of the old one, which goes with its server here.
    let options = ["--cwd", "/", "--timeout", "20s"];
    let upgrade = tests::agent::upgrade(PORT, &options, &candidate.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage.until("the candidate's process", PORT, |service| {
        stage::generations(service).get(&2).is_some_and(|it| !it.pids.is_empty())
    })?;
    stage.agent.kill_daemon()?;
    meanwhile(&stage)?;
    stage.agent.start_daemon()?;
    Ok((stage, first, running, upgrade))
}

#[tokio::test]
async fn while_a_candidate_is_made_ready_that_listens_later() -> Result<()> {
    let candidate = Script::with(PORT, &["--after", "3"])?;
    let (stage, _first, running, upgrade) = killed_while_made_ready(&candidate, |_| Ok(())).await?;
    stage::until_answers(&running, 2, 20)?;
    stage::nobody_noticed(running).await;
    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    Ok(())
}

#[tokio::test]
async fn while_a_candidate_is_made_ready_that_listens_before_the_next_agent() -> Result<()> {
    let candidate = Script::with(PORT, &["--after", "1"])?;
    let (stage, _first, running, upgrade) = killed_while_made_ready(&candidate, |stage| {
        wait::until("the candidate to listen", LIMIT, || {
            Ok((stage.listeners()?.len() == 2).then_some(()))
        })
    })
    .await?;
    stage::until_answers(&running, 2, 20)?;
    stage::nobody_noticed(running).await;
    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    Ok(())
}

#[tokio::test]
async fn while_a_candidate_is_made_ready_that_dies_before_the_next_agent() -> Result<()> {
    let candidate = Script::with(PORT, &["--after", "100"])?;
    let (stage, mut first, running, upgrade) = killed_while_made_ready(&candidate, |stage| {
        // All of it: `python3` may be a script that has started some more.
        let cgroup = stage.agent.cgroup_of("python3-8080", 2)?;
        std::fs::write(cgroup.join("cgroup.kill"), "1")?;
        wait::until("the candidate to be dead", LIMIT, || {
            let events = std::fs::read_to_string(cgroup.join("cgroup.events"))?;
            Ok(events.contains("populated 0").then_some(()))
        })?;
        Ok(())
    })
    .await?;
    let upgrade = upgrade.finish()?;
    assert_eq!(upgrade.code, Some(5), "{upgrade:?}");
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 1);
    stage::nobody_noticed(running).await;
    assert!(first.lives()?);
    Ok(())
}

#[tokio::test]
async fn a_second_agent_in_the_same_place_is_refused() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    let daemon = stage.agent.daemon().context("the agent runs")?;
    let second = stage.agent.run(&["daemon"])?;
    assert_eq!(second.code, Some(7), "{second:?}");
    assert!(second.stderr.contains(&daemon.pid().to_string()), "{second:?}");
    assert_eq!(stage.agent.daemon().map(|it| it.pid()), Some(daemon.pid()));
    stage.switch(&server, 2, &[])?;
    stage::until_answers(&running, 2, 20)?;
    stage::nobody_noticed(running).await;
    Ok(())
}

#[tokio::test]
async fn an_old_generation_that_ended_while_no_agent_ran_is_not_waited_for() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    let mut old = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    stage.switch(&server, 2, &[])?;
    stage.agent.kill_daemon()?;
    first.kill()?;
    stage.agent.start_daemon()?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    let answers = stage.answers(&server, 20).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [2]);
    Ok(())
}

/// Found by the soak: connections to one service reached the server of another one.
#[tokio::test]
async fn a_listener_that_a_killed_agent_was_taking_over_gets_no_slot_of_another_service()
-> Result<()> {
    let (ours, other) = (Node::new(PORT)?, Script::new(PORT + 1)?);
    let (stage, _first) = Stage::attached(&ours)?;
    let _other = stage.start(&other, 7)?;
    stage.agent.attach(PORT + 1)?.success()?;
    let listener = stage.agent.service(PORT + 1)?.generations[0].listeners[0].cookie;
    stage.agent.kill_daemon()?;
    // As an agent leaves it that is killed while it takes the other service's listener over.
    let map = |name: &str| MapData::from_pin(stage.agent.maps().join(name)).map(Map::HashMap);
    let sets: HashMap<_, ListenerSetKey, ListenerSet> = map("LISTENER_SETS")?.try_into()?;
    let sets = sets.iter().collect::<Result<Vec<_>, _>>()?;
    let slot = sets.iter().map(|(_, set)| set.first + set.count).max().context("no slots")?;
    let service = sets.iter().map(|(key, _)| key.service).max().context("no services")?;
    let tag = Tag {
        generation: GenerationKey { service, generation: 1 },
        role: LISTENER,
        options_set: 0,
    };
    let wish = Adoption { action: ADOPT, slot, share: 0, outcome: NOT_SEEN, tag };
    let mut wishes: HashMap<_, u64, Adoption> = map("ADOPTIONS")?.try_into()?;
    wishes.insert(listener, wish, 0)?;

    stage.agent.start_daemon()?;
    stage.switch(&ours, 2, &[])?;
    // Taking over is one walk over all sockets, so that this one would do what the killed agent wanted.
    stage.switch(&other, 8, &["--cwd", "/"])?;
    let answers = stage.answers(&ours, 50).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [2]);
    let answers = stage.answers(&other, 50).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [8]);
    Ok(())
}
