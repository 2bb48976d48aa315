//! Reports of the kernel programs that find their buffer full.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tests::servers::{Script, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

use crate::{PORT, events, until_event};

/// Stops the agent and lets it go on; every test here may fail in between.
struct Stopped(Pid);

impl Stopped {
    fn agent_of(stage: &Stage) -> Result<Self> {
        let pid = stage.agent.daemon().context("the agent runs")?.pid();
        let stopped = Self(Pid::from_raw(pid).context("a process number")?);
        kill_process(stopped.0, Signal::STOP)?;
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = kill_process(self.0, Signal::CONT) {
            eprintln!("the agent cannot go on: {error}");
        }
    }
}

#[tokio::test]
async fn lost_reports_are_noticed_and_what_they_were_about_is_found_out() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let running = stage.busy(&server)?;
    // A report is 32 bytes long, in a ring of 64 KiB: the last one, which matters, finds no room.
    let candidate = Script::with(PORT, &["--after", "3", "--listen-before", "2500"])?;
    let upgrade = tests::agent::upgrade(PORT, &["--timeout", "30s"], &candidate.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage.until("the candidate's process", PORT, |service| {
        stage::generations(service).get(&2).is_some_and(|it| !it.pids.is_empty())
    })?;

    let stopped = Stopped::agent_of(&stage)?;
    wait::until("the candidate to listen", LIMIT, || {
        let listeners = stage.listeners()?;
        Ok((listeners.iter().filter(|it| it.port == PORT).count() == 2).then_some(()))
    })?;
    drop(stopped);

    let told = until_event(&stage, "reports of the kernel programs were lost")?;
    let lost: u32 = told.split(' ').next().context("a number")?.parse()?;
    assert!(lost > 400, "{told}");
    stage::until_answers(&running, 2, 20)?;
    stage::nobody_noticed(running).await;
    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    // Told of once, and not again by the next agent.
    let told =
        |messages: Vec<String>| messages.iter().filter(|it| it.contains("were lost")).count();
    assert_eq!(told(events(&stage)?), 1);
    stage.agent.daemon().context("the agent runs")?.kill()?;
    stage.agent.attach(PORT)?.success()?;
    stage.switch(&server, 3, &[])?;
    assert_eq!(told(events(&stage)?), 0);
    Ok(())
}
