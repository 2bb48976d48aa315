//! What the agent may do, and who starts servers for it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::process::{Handle, children};
use tests::servers::{Script, Server as _};
use tests::stage::{LIMIT, Stage, generations};
use tests::wait;

const PORT: u16 = 8080;

/// A line of `/proc/PID/status`.
fn status(pid: i32, name: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {name}"))?.trim().to_owned())
}

fn capabilities(pid: i32, set: &str) -> Result<u64> {
    Ok(u64::from_str_radix(&status(pid, set)?, 16)?)
}

fn launcher(agent: i32) -> Result<i32> {
    let found = children(agent)?;
    ensure!(found.len() == 1, "the launcher is its only child: {found:?}");
    assert_eq!(status(found[0], "Name")?, "agent-launcher");
    Ok(found[0])
}

/// The numbers of `linux/capability.h`.
const SET_USER_AND_GROUPS: u64 = 1 << 6 | 1 << 7;
const TO_LAUNCH: u64 = SET_USER_AND_GROUPS | 1 << 8 | 1 << 18 | 1 << 23;
const MODULES_RAW_IO_DEVICES: u64 = 1 << 16 | 1 << 17 | 1 << 27;

#[test]
fn the_agent_gives_up_what_only_a_launch_needs_and_its_servers_do_not() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    let agent = stage.agent.daemon().context("an agent")?.pid();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let has = capabilities(agent, set)?;
        assert_eq!(has & (TO_LAUNCH | MODULES_RAW_IO_DEVICES), 0, "{set}: {has:x}");
    }
    assert_eq!([status(agent, "NoNewPrivs")?, status(agent, "Seccomp")?], ["1", "2"]);
    let threads = fs::read_dir(format!("/proc/{agent}/task"))?;
    for thread in threads.map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?)) {
        let thread: Result<i32> = thread;
        assert_eq!(status(thread?, "Seccomp")?, "2");
    }
    let launcher = launcher(agent)?;
    assert_eq!(capabilities(launcher, "CapEff")?, capabilities(first.pid(), "CapEff")?);

    stage.switch(&server, 2, &[])?;
    let second = generations(&stage.agent.service(PORT)?)[&2].pids[0];
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        assert_eq!(capabilities(second, set)?, capabilities(first.pid(), set)?, "{set}");
    }
    for confined in ["NoNewPrivs", "Seccomp"] {
        assert_eq!(status(second, confined)?, status(first.pid(), confined)?, "{confined}");
    }
    stage.detach(PORT)
}

#[test]
fn without_its_launcher_the_agent_ends_and_the_next_one_goes_on() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &[])?;
    let agent = stage.agent.daemon().context("an agent")?;
    Handle::open(launcher(agent.pid())?)?.kill()?;
    ensure!(agent.ended_within(LIMIT)?, "it cannot launch any more");
    assert_eq!(stage.generation(server.address())?, 2);
    stage.agent.start_daemon()?;
    stage.switch(&server, 3, &[])?;
    assert_eq!(stage.generation(server.address())?, 3);
    stage.detach(PORT)
}

#[test]
fn the_launcher_ends_with_the_agent_and_servers_go_on() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &[])?;
    let agent = stage.agent.daemon().context("an agent")?;
    let launcher = Handle::open(launcher(agent.pid())?)?;
    agent.kill()?;
    ensure!(launcher.ended_within(LIMIT)?, "nobody is left to ask it");
    assert_eq!(stage.generation(server.address())?, 2);
    stage.agent.start_daemon()?;
    stage.until_steady(PORT)?;
    let second = generations(&stage.agent.service(PORT)?)[&2].pids[0];
    let second = Handle::open(second)?;
    stage.switch(&server, 3, &[])?;
    wait::until("its end", LIMIT, || Ok(second.ended_within(LIMIT)?.then_some(())))?;
    stage.detach(PORT)
}
