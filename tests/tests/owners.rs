//! Agents of several network namespaces with the same control group: each has its own generations, and none but those.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::servers::{Script, Server as _, Started};
use tests::stage::{self, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// Two agents that know nothing of each other, each with generation 2 of its own.
struct Two {
    server: Script,
    stages: [Stage; 2],
    _firsts: [Started; 2],
}

impl Two {
    fn new() -> Result<Self> {
        let server = Script::new(PORT)?;
        let (one, mut other) = (Stage::new()?, Stage::new()?);
        other.agent.share_cgroup(&one.agent);
        let stages = [one, other];
        let mut firsts = Vec::new();
        for stage in &stages {
            firsts.push(stage.start(&server, 1)?);
            stage.agent.attach(PORT)?.success()?;
            stage.agent.upgrade(PORT, &server.command(2)?)?.success()?;
        }
        let firsts = firsts.try_into().ok().context("as many as stages")?;
        Ok(Self { server, stages, _firsts: firsts })
    }

    fn serve(&self, generations: [u32; 2]) -> Result<()> {
        for (stage, generation) in self.stages.iter().zip(generations) {
            assert_eq!(stage.generation(self.server.address())?, generation);
        }
        Ok(())
    }
}

#[test]
fn an_upgrade_here_ends_nothing_there() -> Result<()> {
    let two = Two::new()?;
    let [one, other] = &two.stages;
    other.agent.upgrade(PORT, &two.server.command(3)?)?.success()?;
    two.serve([2, 3])?;
    one.agent.upgrade(PORT, &two.server.command(3)?)?.success()?;
    two.serve([3, 3])
}

#[test]
fn the_last_detach_here_leaves_the_agent_there_all_that_it_needs() -> Result<()> {
    let two = Two::new()?;
    let [one, other] = &two.stages;
    one.detach(PORT)?;
    assert!(one.agent.cgroup().exists() && !one.agent.keeper()?.exists());
    // Its bind has to be helped.
    other.agent.upgrade(PORT, &two.server.command(3)?)?.success()?;
    assert_eq!(other.generation(two.server.address())?, 3);
    other.detach(PORT)?;
    assert!(!one.agent.cgroup().exists(), "nobody needs it any more");
    Ok(())
}

#[test]
fn an_agent_that_has_launched_nothing_keeps_its_programs_attached() -> Result<()> {
    let server = Script::new(PORT)?;
    let (one, mut other) = (Stage::new()?, Stage::new()?);
    other.agent.share_cgroup(&one.agent);
    let _first = one.start(&server, 1)?;
    let _other = other.start(&server, 1)?;
    one.agent.attach(PORT)?.success()?;
    other.agent.attach(PORT)?.success()?;
    one.agent.detach(PORT)?.success()?;
    other.agent.upgrade(PORT, &server.command(2)?)?.success()?;
    assert_eq!(other.generation(server.address())?, 2);
    Ok(())
}

#[test]
fn a_repair_here_touches_nothing_there() -> Result<()> {
    let two = Two::new()?;
    let [one, other] = &two.stages;
    one.detach(PORT)?;
    let diagnosis = one.agent.run(&["doctor", "-o", "json"])?.json()?;
    let checks = diagnosis["checks"].as_array().context("the answer has checks")?;
    let check = checks.iter().find(|it| it["name"] == "services").context("it is checked")?;
    assert_eq!(check["verdict"], "ok", "{check}");
    let repaired = one.agent.run(&["doctor", "--repair", "-o", "json"])?.success()?.json()?;
    assert_eq!(repaired["changed"], false, "{repaired}");
    assert!(other.agent.cgroup_of("python3-8080", 2)?.exists());
    assert_eq!(other.generation(two.server.address())?, 2);
    Ok(())
}

#[test]
fn another_agent_of_the_same_namespace_is_refused_the_group_that_is_in_use() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let group = stage.agent.cgroup_of("python3-8080", 2)?;
    fs::create_dir(&group)?;
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn()?;
    fs::write(group.join("cgroup.procs"), stranger.id().to_string())?;
    let refused = stage.agent.upgrade(PORT, &server.command(2)?)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("not of this service"), "{refused:?}");
    assert!(stranger.try_wait()?.is_none(), "it lives");
    stranger.kill()?;
    stranger.wait()?;
    stage.agent.upgrade(PORT, &server.command(2)?)?.success().map(drop)
}

/// Names had no namespace in them.
#[test]
fn a_generation_of_an_earlier_agent_stays_where_it_is() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.agent.upgrade(PORT, &server.command(2)?)?.success()?;
    stage.agent.kill_daemon()?;
    let (now, then) =
        (stage.agent.cgroup_of("python3-8080", 2)?, stage.agent.cgroup().join("python3-8080.2"));
    fs::create_dir(&then)?;
    for pid in fs::read_to_string(now.join("cgroup.procs"))?.lines() {
        fs::write(then.join("cgroup.procs"), pid)?;
    }
    fs::remove_dir(&now)?;
    let path = stage.agent.runtime().join("state.json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let generation = &mut state["services"][0]["service"]["generations"][0];
    assert_eq!(generation["number"], 2, "{generation}");
    generation["origin"]["cgroup"] = then.to_string_lossy().into();
    fs::write(&path, state.to_string())?;

    stage.agent.start_daemon()?;
    let service = stage.agent.service(PORT)?;
    assert!(!stage::generations(&service)[&2].pids.is_empty());
    stage.agent.upgrade(PORT, &server.command(3)?)?.success()?;
    wait::until("its group to be removed", stage::LIMIT, || Ok((!then.exists()).then_some(())))?;
    assert!(stage.agent.cgroup_of("python3-8080", 3)?.exists());
    Ok(())
}
