//! One server is hostile in all ways that it has, and the service beside it does not notice.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::servers::{Hostile, Script, Server as _};
use tests::stage::{Stage, connections, until_answers};

const PORT: u16 = 8080;
const NEIGHBOUR: u16 = 8081;
const UPGRADES: u32 = 20;
const SLACK: Duration = Duration::from_millis(500);

fn memory(stage: &Stage) -> Result<u64> {
    let agent = stage.agent.daemon().context("an agent")?.pid();
    let status = fs::read_to_string(format!("/proc/{agent}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The medians count: the machine may be busy with something else once.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn upgraded(stage: &Stage, server: &Script, generation: u32) -> Result<Duration> {
    let begun = Instant::now();
    stage.switch(server, generation, &["--settle", "0s"])?;
    let took = begun.elapsed();
    stage.until_steady(NEIGHBOUR)?;
    Ok(took)
}

#[tokio::test]
async fn its_neighbour_is_upgraded_as_if_it_were_alone() -> Result<()> {
    let neighbour = Script::new(NEIGHBOUR)?;
    let (stage, _beside) = Stage::attached(&neighbour)?;
    let load = stage.busy(&neighbour)?;
    let alone: Vec<_> =
        (2..=6).map(|number| upgraded(&stage, &neighbour, number)).collect::<Result<_>>()?;

    let hostile = Hostile::new(PORT, NEIGHBOUR, &stage.agent.runtime().join("agent.sock"))?;
    let _first = stage.start(&hostile, 1)?;
    // Whether it is taken or refused, and what it is asked later, is for the agent to say, not for how long.
    stage.agent.attach(PORT)?;
    let (before, shadow) = (memory(&stage)?, fs::metadata("/etc/shadow")?);
    let (mut beside, mut done) = (Vec::new(), 0);
    for (number, turn) in (7..7 + UPGRADES).zip(0_u32..) {
        let options = ["--timeout", "2s", "--drain-timeout", "100ms", "--stop-timeout", "100ms"];
        let asked = match turn % 4 {
            0 | 2 => tests::agent::upgrade(PORT, &options, &hostile.command(turn + 2)?),
            1 => ["undo", "8080"].map(str::to_owned).to_vec(),
            _ => ["detach", "8080"].map(str::to_owned).to_vec(),
        };
        let asked = stage.agent.start(&mut stage.agent.command(&asked))?;
        beside.push(upgraded(&stage, &neighbour, number)?);
        done += u32::from(asked.finish()?.code == Some(0));
        if turn % 4 == 3 {
            stage.agent.attach(PORT)?;
        }
    }
    until_answers(&load, 6 + UPGRADES, 20)?;
    // A quick machine is through with all of it within five seconds.
    ensure!(connections(&load) > 200, "the neighbour was busy");
    ensure!(done >= UPGRADES / 2, "{done} of what was asked of the hostile one was done");
    let summary = load.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    let (alone, beside) = (median(alone), median(beside));
    // Both run on the same few processors.
    ensure!(beside <= alone * 2 + SLACK, "an upgrade took {beside:?}, and {alone:?} alone");
    let grown = memory(&stage)?.saturating_sub(before);
    ensure!(grown < 16 << 10, "the agent has grown by {grown} KiB");
    let after = fs::metadata("/etc/shadow")?;
    assert_eq!(
        (shadow.mtime(), shadow.uid(), shadow.mode()),
        (after.mtime(), after.uid(), after.mode())
    );
    let kept = fs::metadata(stage.agent.runtime().join("state.json"))?;
    assert_eq!((kept.uid(), kept.mode() & 0o777), (0, 0o600));
    stage.namespace.clear()
}
