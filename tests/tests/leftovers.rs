//! Processes that outlive their turn, and numbers that belong to somebody else by now.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_api::ServiceState;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::process::Handle;
use tests::servers::{Commanded, Script, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// The processes `sleep` among those of a generation.
fn strays(stage: &Stage, generation: u32) -> Result<Vec<i32>> {
    let service = stage.agent.service(PORT)?;
    let pids = stage::generations(&service)[&generation].pids.clone();
    Ok(pids.into_iter().filter(|pid| is_stray(*pid)).collect())
}

fn is_stray(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
}

fn stray_in_generation_2() -> Result<(Stage, Script, tests::servers::Started)> {
    let plain = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&plain)?;
    let stray = Script::with(PORT, &["--stray"])?;
    stage.agent.upgrade(PORT, &stray.command(2)?)?.success()?;
    Ok((stage, plain, first))
}

#[test]
fn a_child_that_inherited_the_listener_is_killed_at_the_deadline_and_named() -> Result<()> {
    let (stage, plain, _first) = stray_in_generation_2()?;
    let pid = *strays(&stage, 2)?.first().context("no stray child")?;
    let stray = Handle::open(pid)?;
    let upgrade = tests::agent::upgrade(PORT, &["--stop-timeout", "200ms"], &plain.command(3)?);
    stage.agent.run(&upgrade)?.success()?;
    assert!(stray.ended_within(stage::LIMIT)?, "the stray child lives");
    assert_eq!(stage.listeners()?.len(), 1, "a listener of generation 2 is left");
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains(&format!("killing {pid} (sleep 600)")), "{events}");
    Ok(())
}

#[test]
fn the_same_for_a_server_that_was_found_running() -> Result<()> {
    let stray = Script::with(PORT, &["--stray"])?;
    let (stage, first) = Stage::attached(&stray)?;
    let plain = Script::new(PORT)?;
    let upgrade = tests::agent::upgrade(PORT, &["--stop-timeout", "200ms"], &plain.command(2)?);
    stage.agent.run(&upgrade)?.success()?;
    drop(first);
    assert_eq!(stage.listeners()?.len(), 1, "a listener of generation 1 is left");
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains("(sleep 600)"), "{events}");
    Ok(())
}

/// It belongs to the generation by birth.
#[test]
fn one_that_left_the_cgroup_ends_with_its_generation_all_the_same() -> Result<()> {
    let (stage, plain, _first) = stray_in_generation_2()?;
    let pid = *strays(&stage, 2)?.first().context("no stray child")?;
    let stray = Handle::open(pid)?;
    let elsewhere = stage.agent.cgroup().parent().context("a cgroup has a parent")?;
    fs::write(elsewhere.join("cgroup.procs"), pid.to_string())?;
    let upgrade = tests::agent::upgrade(PORT, &["--stop-timeout", "200ms"], &plain.command(3)?);
    stage.agent.run(&upgrade)?.success()?;
    assert!(stray.ended_within(stage::LIMIT)?, "the stray child lives");
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains(&format!("killing {pid} (sleep 600)")), "{events}");
    stage.detach(PORT)
}

#[test]
fn a_server_that_dies_and_leaves_a_child_with_its_listener_is_told_of() -> Result<()> {
    let (stage, _plain, _first) = stray_in_generation_2()?;
    let service = stage.agent.service(PORT)?;
    let server = stage::generations(&service)[&2].pids.iter().copied().find(|it| !is_stray(*it));
    Handle::open(server.context("no server")?)?.kill()?;
    let told = || -> Result<Option<()>> {
        let events = stage.agent.run(&["events"])?.success()?.stdout;
        Ok(events.contains("(sleep 600) behind").then_some(()))
    };
    tests::wait::until("the warning", stage::LIMIT, told)
}

/// The state file names a process by number and start time. A stranger that has the number now is no part of the service.
#[test]
fn a_stranger_with_the_number_of_an_old_process_is_never_signalled() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    let mut pin = stage.connect(server.address())?;
    stage.switch(&server, 2, &[])?;
    stage.agent.kill_daemon()?;
    drop(first);
    let mut stranger = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn()?;
    let path = stage.agent.runtime().join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let process = state.pointer_mut("/services/0/service/generations/0/processes/0/pid");
    *process.context("generation 1 has a process")? = stranger.id().into();
    fs::write(&path, serde_json::to_vec(&state)?)?;

    stage.agent.start_daemon()?;
    stage.until_steady(PORT)?;
    assert!(stranger.try_wait()?.is_none(), "the stranger was ended");
    stranger.kill()?;
    stranger.wait()?;
    assert!(stage::ask(&mut pin).is_err(), "generation 1 is gone");
    assert_eq!(stage.agent.service(PORT)?.state, ServiceState::Steady);
    Ok(())
}

/// A service that is upgraded every minute would fill the disk that its runtime directory is on.
#[test]
fn of_generations_that_are_gone_the_last_logs_are_kept() -> Result<()> {
    const KEPT: usize = 16;
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let last = KEPT as u32 + 6;
    for generation in 2..=last {
        stage.agent.upgrade(PORT, &server.command(generation)?)?.success()?;
    }
    let name = stage.agent.service(PORT)?.name;
    let directory = stage.agent.runtime().join("services").join(name.as_str());
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory)? {
        logs.push(entry?.file_name().to_string_lossy().into_owned());
    }
    // And those of the one that serves, and of the few that the agent still knew when it cleared away.
    assert!((KEPT..KEPT + 4).contains(&logs.len()), "{logs:?}");
    assert!(logs.contains(&format!("generation-{last}.log")), "{logs:?}");
    assert!(!logs.contains(&"generation-2.log".to_owned()), "{logs:?}");
    Ok(())
}

/// A program that makes its user root, as sudo is, started by a server of a user's: no user may end what it does, and so neither may
/// an upgrade of that server.
#[test]
fn a_child_that_became_root_is_not_ended_with_a_server_of_a_user_s() -> Result<()> {
    const USER: &str = "setpriv --reuid=1001 --regid=1001 --clear-groups --inh-caps=-all";
    const SLEEP: &str = "sleep 654.321";
    let script =
        format!("{{}}/become --reuid=0 {SLEEP} & exec /usr/bin/python3 {{}}/server.py {PORT} 1");
    let command: Vec<_> = USER.split(' ').chain(["sh", "-c", &script]).collect();
    let server = Commanded::new(PORT, &command)?;
    let become_root = server.directory().join("become");
    fs::copy("/usr/bin/setpriv", &become_root)?;
    fs::set_permissions(&become_root, fs::Permissions::from_mode(0o4755))?;
    let (stage, _first) = Stage::attached(&server)?;
    let sleeper = wait::until("its child to be root", LIMIT, || {
        let pids = &stage.agent.service(PORT)?.generations[0].pids;
        let runs = |pid: &i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words
                == SLEEP
                    .replace(' ', "\0")
                    .as_bytes()
                    .iter()
                    .chain(b"\0")
                    .copied()
                    .collect::<Vec<_>>()
        };
        Ok(pids.iter().copied().find(runs))
    })?;
    let sleeper = Handle::open(sleeper)?;
    let options = ["--settle", "0s", "--stop-timeout", "200ms"];
    let next = Commanded::new(PORT, &["/usr/bin/python3", "{}/server.py", "8080", "2"])?;
    stage.switch(&next, 2, &options)?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations.len(), 1, "nobody of the old one is left: {service:#?}");
    let lives = !sleeper.ended_within(Duration::ZERO)?;
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    let detached = stage.detach(PORT);
    sleeper.kill()?;
    ensure!(lives, "it was ended");
    ensure!(events.contains("has become root, which its server may not end"), "{events}");
    ensure!(events.contains("belongs to generation 1 no longer"), "{events}");
    detached
}

/// A descriptor in a message that nobody has received is in no process, and its socket listens all the same.
#[test]
fn a_listener_that_nobody_is_seen_to_hold_is_no_less_in_the_way_of_a_detach() -> Result<()> {
    const HIDE: &str = "import array, socket, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind((\"\", 8080))
listener.listen()
ours, theirs = socket.socketpair()
held = array.array(\"i\", [listener.fileno()])
ours.sendmsg([b\"x\"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, held)])
listener.close()
print(\"hidden\", flush=True)
time.sleep(60)";
    let server = Script::with(PORT, &["--reuse-port"])?;
    let (stage, _first) = Stage::attached(&server)?;
    let mut hiding = Command::new("/usr/bin/python3");
    hiding.args(["-c", HIDE]).stdout(Stdio::piped());
    let mut hiding = stage.namespace.spawn(&mut hiding)?;
    let mut said = String::new();
    BufReader::new(hiding.stdout.take().context("its output")?).read_line(&mut said)?;
    let refused = stage.refused(&["detach", "8080"], 7)?;
    assert!(refused.contains("held by nobody who can be seen"), "{refused}");
    hiding.kill()?;
    hiding.wait()?;
    stage.detach(PORT)
}
