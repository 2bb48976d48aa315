//! Attaching disturbs nobody and knows what is there; detaching leaves nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use agent_api::Attached;
use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockopt, setsockopt, socket, sockopt,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tests::servers::{Nginx, Node, Python, Redis, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

#[tokio::test]
async fn a_hundred_attaches_and_detaches_disturb_no_connection() -> Result<()> {
    let server = Node::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let running = stage.load(server.plan().one_shot(100).generations(1..=1))?;
    stage::until_answers(&running, 1, 20)?;

    let mut took = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        let attached = stage.agent.attach(PORT)?.success()?;
        took.push(begun.elapsed());
        let attached: Attached = serde_json::from_str(&attached.stdout)?;
        assert!(attached.changed);
        stage.agent.detach(PORT)?.success()?;
    }

    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    took.sort_unstable();
    println!(
        "attach, the start of an agent included: median {:?}, longest {:?}",
        took[50], took[99]
    );
    assert!(took[50] < Duration::from_secs(2), "{took:?}");
    Ok(())
}

#[test]
fn connections_that_were_open_before_are_known_and_counted() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let connect = || stage.connect(server.address());
    let mut before = (0..12).map(|_| connect()).collect::<Result<Vec<_>>>()?;
    for stream in before.iter_mut().take(6) {
        assert_eq!(stage::ask(stream)?, 1);
    }

    stage.agent.attach(PORT)?.success()?;
    let service = stage.agent.service(PORT)?;
    assert_eq!(stage.flows(PORT)?.len(), 12);
    assert_eq!(service.generations[0].open_flows, 12);
    assert_eq!(service.generations[0].new_connections, 12);
    let flows = stage.agent.run(&["flows", "--port", "8080", "-o", "json"])?.success()?.json()?;
    let flows = flows["flows"].as_array().context("flows are a list")?;
    assert_eq!(flows.len(), 12);
    assert!(flows.iter().all(|flow| flow["generation"] == 1), "{flows:?}");

    before.truncate(5);
    stage.until("five open flows", PORT, |service| service.generations[0].open_flows == 5)?;
    for stream in &mut before {
        assert_eq!(stage::ask(stream)?, 1);
    }
    Ok(())
}

#[test]
fn attaching_again_changes_nothing_and_says_so() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let mut stream = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut stream)?, 1);
    let (before, pins) = (stage.agent.service(PORT)?, stage.traces()?);

    let again = stage.agent.attach(PORT)?.success()?;
    let again: Attached = serde_json::from_str(&again.stdout)?;
    assert!(!again.changed);
    assert_eq!(again.service.name, before.name);
    let after = stage.agent.service(PORT)?;
    assert_eq!(after.generations[0].listeners, before.generations[0].listeners);
    assert_eq!(after.generations[0].open_flows, 1);
    assert_eq!(after.generations[0].new_connections, before.generations[0].new_connections);
    assert_eq!(stage.traces()?, pins);
    Ok(())
}

#[test]
fn detaching_leaves_no_trace() -> Result<()> {
    let server = Redis::new(PORT)?;
    let stage = Stage::new()?;
    let first = stage.start(&server, 1)?;
    let _open = stage.connect(server.address())?;
    let other_can_bind = || other_server_can_bind(&stage);
    // The connection of above has no process before it is accepted.
    wait::until("the connection to be accepted", LIMIT, || {
        Ok((reuse_port(first.pid())?.len() == 3).then_some(()))
    })?;
    let listeners = stage.listeners()?;
    let mut traces = stage.traces()?;
    traces.retain(|path| path != stage.agent.runtime());
    assert_eq!(reuse_port(first.pid())?, [false; 3]);
    assert!(!other_can_bind()?);

    stage.agent.attach(PORT)?.success()?;
    let daemon = stage.agent.daemon().context("the agent runs")?;
    // The connection is left as it is.
    assert_eq!(reuse_port(first.pid())?, [true, true, false]);
    assert!(stage.agent.links().join("steer").exists());
    assert!(stage.agent.cgroup().exists());

    stage.agent.detach(PORT)?.success()?;
    assert!(daemon.ended_within(LIMIT)?, "the agent that `attach` started ends");
    // Whether another socket of this user could bind now is the kernel's to say: for the life of the port it may remember
    // (`fastreuseport`) that one did, as ours does for a moment at attach.
    assert_eq!(reuse_port(first.pid())?, [false; 3]);
    assert_eq!(stage.listeners()?, listeners);
    assert_eq!(stage.traces()?, traces);
    Ok(())
}

/// Whether the sockets of a process on the port, listeners and connections, let others share it.
fn reuse_port(pid: i32) -> Result<Vec<bool>> {
    let process = pidfd_open(Pid::from_raw(pid).context("a process number")?, PidfdFlags::empty())?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // It may be closed by now.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if !target.to_string_lossy().starts_with("socket:") {
            continue;
        }
        let number = entry.file_name().to_string_lossy().parse()?;
        let duplicate = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
        found.push(getsockopt(&duplicate.as_fd(), sockopt::ReusePort)?);
    }
    Ok(found)
}

/// Whether a stranger that asks for it could share the port.
fn other_server_can_bind(stage: &Stage) -> Result<bool> {
    stage.namespace.enter(|| {
        let stranger = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&stranger, sockopt::ReuseAddr, &true)?;
        setsockopt(&stranger, sockopt::ReusePort, &true)?;
        let address = SockaddrIn::new(127, 0, 0, 1, PORT);
        Ok(bind(std::os::fd::AsRawFd::as_raw_fd(&stranger), &address).is_ok())
    })
}

#[test]
fn a_control_group_is_named_from_its_mount_point_or_from_its_root() -> Result<()> {
    let server = Python::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let outside = stage.refused(&["attach", "--port", "8080", "--cgroup", "/../outside"], 2)?;
    assert!(outside.contains("/../outside"), "{outside}");
    assert_eq!(fs::read_dir(stage.agent.runtime())?.count(), 0, "who was refused leaves nothing");
    let name = Path::new("/").join(stage.agent.cgroup().file_name().context("a name")?);
    let name = name.to_str().context("a path in UTF-8")?;
    stage.agent.run(&["attach", "--port", "8080", "--cgroup", name])?.success()?;
    assert!(stage.agent.cgroup().is_dir());
    stage.detach(PORT)
}

/// Whoever interrupts an attach at that moment finds nothing of it a little later.
#[test]
fn an_agent_whose_asker_goes_before_anything_is_attached_ends_and_leaves_nothing() -> Result<()> {
    let stage = Stage::new()?;
    let agent = &stage.agent;
    let mut command = agent.command(&["daemon", "--exit-when-detached", "--for-attach"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut daemon = stage.namespace.spawn(&mut command)?;
    let mut asker = BufReader::new(daemon.stdout.take().context("it was asked to be piped")?);
    let mut line = String::new();
    asker.read_line(&mut line)?;
    assert_eq!(line, "ready\n");
    drop(asker);
    wait::until("the agent to end", LIMIT, || Ok(daemon.try_wait()?))?;
    assert!(!agent.pins().exists() && !agent.cgroup().exists() && !agent.runtime().exists());
    Ok(())
}
