//! Whoever starts the old version again when it is told to end: supervisors that somebody wrote, which nobody knows by name.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::{Output, upgrade};
use tests::process::Handle;
use tests::servers::{Commanded, Prefork, Script, Server as _, Started};
use tests::stage::{LIMIT, Stage, generations};
use tests::wait;

const PORT: u16 = 8080;

/// With a first generation that a shell has started.
fn supervised(script: &str) -> Result<(Commanded, Stage, Started)> {
    let supervisor = Commanded::new(PORT, &["sh", "-c", script])?;
    let (stage, first) = Stage::attached(&supervisor)?;
    Ok((supervisor, stage, first))
}

/// Upgrades, and waits until nobody of the first generation is left.
fn is_replaced_for_good(supervisor: &[&str]) -> Result<()> {
    let supervisor = Commanded::new(PORT, supervisor)?;
    let (stage, first) = Stage::attached(&supervisor)?;
    let handle = Handle::open(first.pid())?;
    // For any user.
    let second = ["/usr/bin/python3", "{}/server.py", "8080", "2", "--reuse-port"];
    let server = Commanded::new(PORT, &second)?;
    stage.switch(&server, 2, &[])?;
    ensure!(handle.ended_within(LIMIT)?, "{}", stage.agent.run(&["events"])?.stdout);
    let service = stage.until_steady(PORT)?;
    let [second] = &service.generations[..] else { panic!("{service:#?}") };
    assert_eq!(second.number.0, 2, "{service:#?}");
    let agent = stage.agent.processes()?;
    wait::until("everybody of the first to end", LIMIT, || {
        let mut left = stage.namespace.processes()?;
        left.retain(|pid| !second.pids.contains(pid) && !agent.contains(pid));
        Ok(left.is_empty().then_some(()))
    })
    .with_context(|| format!("{:?}", stage.namespace.processes()))?;
    assert_eq!(stage.generation(server.address())?, 2);
    stage.detach(PORT)
}

#[test]
fn a_loop_in_a_shell_ends_with_the_server_that_it_would_start_again() -> Result<()> {
    let body = "while :; do /usr/bin/python3 {}/server.py 8080 1 --reuse-port; done";
    is_replaced_for_good(&["sh", "-c", body])
}

/// It finds the port taken, and tries again without end.
#[test]
fn so_does_one_whose_server_cannot_share_the_port() -> Result<()> {
    is_replaced_for_good(&[
        "sh",
        "-c",
        "while :; do /usr/bin/python3 {}/server.py 8080 1; sleep 0.3; done",
    ])
}

#[test]
fn so_does_a_parent_that_starts_the_server_through_a_shell() -> Result<()> {
    let parent = "import subprocess
while True:
    subprocess.run('/usr/bin/python3 {}/server.py 8080 1 --reuse-port; true', shell=True)";
    is_replaced_for_good(&["python3", "-c", parent])
}

#[test]
fn so_does_one_that_gives_the_server_a_session_and_another_user() -> Result<()> {
    let server =
        "setpriv --reuid=65534 --clear-groups /usr/bin/python3 {}/server.py 8080 1 --reuse-port";
    let body = format!("while :; do setsid {server} & wait $!; done");
    is_replaced_for_good(&["sh", "-c", &body])
}

/// As `cron` does: it starts whatever there is to start, and has started the server just now.
#[test]
fn who_starts_everything_in_a_session_of_its_own_is_spared() -> Result<()> {
    let body = "while :; do setsid sh -c '/usr/bin/python3 {}/server.py 8080 1 --reuse-port; true' & wait $!; done";
    let (_supervisor, stage, first) = supervised(body)?;
    let handle = Handle::open(first.pid())?;
    stage.switch(&Script::with(PORT, &["--reuse-port"])?, 2, &[])?;
    stage.until("somebody beside", PORT, |service| !service.beside.is_empty())?;
    ensure!(!handle.ended_within(Duration::ZERO)?, "it may start anything");
    stage.namespace.clear()
}

/// One that has another server too would take that along.
#[test]
fn a_supervisor_of_others_is_spared_and_told_of() -> Result<()> {
    let both = "/usr/bin/python3 {}/server.py 8081 1 & while :; do /usr/bin/python3 {}/server.py 8080 1 --reuse-port; done";
    let (_supervisor, stage, first) = supervised(both)?;
    let handle = Handle::open(first.pid())?;
    let server = Script::with(PORT, &["--reuse-port"])?;
    stage.switch(&server, 2, &[])?;
    let service = stage.until("somebody beside", PORT, |service| !service.beside.is_empty())?;
    assert!(service.beside[0].command.contains("server.py 8080 1"), "{service:#?}");
    let status = stage.agent.run(&["status"])?.success()?.stdout;
    assert!(status.contains("get no new connection"), "{status}");
    assert_eq!(stage.generation(server.address())?, 2);
    ensure!(!handle.ended_within(Duration::ZERO)?, "it has another server");
    stage.namespace.clear()
}

/// As one is attached whose master has not started all of its workers yet.
#[test]
fn a_second_worker_makes_its_parent_a_master() -> Result<()> {
    let server = Prefork::new(PORT, 1)?;
    let (stage, first) = Stage::attached(&server)?;
    let master = Handle::open(first.pid())?;
    assert_eq!(stage.agent.service(PORT)?.generations[0].pids.len(), 1, "who knows?");
    kill(Pid::from_raw(first.pid()), Signal::SIGHUP)?;
    let service = stage.until("the second worker", PORT, |service| {
        let first = &service.generations[0];
        first.listeners.len() == 2 && first.pids.len() == 3
    })?;
    assert_eq!(service.generations.len(), 1, "{service:#?}");
    stage.switch(&server, 2, &[])?;
    ensure!(master.ended_within(LIMIT)?, "it would start its workers again");
    stage.until_steady(PORT)?;
    stage.detach(PORT)
}

/// It has begun before the server ended, and does not end with it.
#[test]
fn a_script_that_waits_for_a_wrapper_goes_on() -> Result<()> {
    let inner =
        "/usr/bin/python3 {}/server.py 8080 1 --reuse-port; sleep 0.5; echo > {}/cleaned-up";
    let script = format!("sh -c '{inner}'; echo > {{}}/next; exec sleep 100");
    let (supervisor, stage, first) = supervised(&script)?;
    stage.switch(&Script::with(PORT, &["--reuse-port"])?, 2, &[])?;
    wait::until("its next step", LIMIT, || {
        let done = |name: &str| supervisor.directory().join(name).exists();
        Ok((done("cleaned-up") && done("next")).then_some(()))
    })?;
    stage.until_steady(PORT)?;
    assert!(tests::process::runs(first.pid()));
    stage.namespace.clear()
}

/// It would take what it serves itself along.
#[test]
fn a_supervisor_that_serves_something_itself_is_spared_and_told_of() -> Result<()> {
    let parent = "import socket, subprocess
own = socket.create_server(('127.0.0.1', 7000))
while True:
    subprocess.run(['/usr/bin/python3', '{}/server.py', '8080', '1', '--reuse-port'])";
    let supervisor = Commanded::new(PORT, &["python3", "-c", parent])?;
    let (stage, first) = Stage::attached(&supervisor)?;
    let handle = Handle::open(first.pid())?;
    stage.switch(&Script::with(PORT, &["--reuse-port"])?, 2, &[])?;
    wait::until("a word about it", LIMIT, || {
        let events = stage.agent.run(&["events"])?.success()?.stdout;
        Ok(events.contains("is left alone because it has more to do").then_some(()))
    })?;
    ensure!(!handle.ended_within(Duration::ZERO)?, "it serves port 7000");
    stage.namespace.clear()
}

/// The server of the first generation dies while the second one has to prove itself, and is started again.
fn comes_back_within(settle: &str) -> Result<(Handle, (Commanded, Stage, Started, Script))> {
    let (supervisor, stage, first) =
        supervised("while :; do /usr/bin/python3 {}/server.py 8080 1 --reuse-port; done")?;
    let handle = Handle::open(first.pid())?;
    let old = stage.agent.service(PORT)?.generations[0].pids[0];
    let server = Script::with(PORT, &["--reuse-port"])?;
    let options = ["--settle", settle, "--wait", "switched"];
    stage.agent.run(&upgrade(PORT, &options, &server.command(2)?))?.success()?;
    kill(Pid::from_raw(old), Signal::SIGKILL)?;
    stage.until("the next one", PORT, |service| generations(service).contains_key(&3))?;
    Ok((handle, (supervisor, stage, first, server)))
}

/// What comes back before the new generation has proved itself is what there is to fall back to.
#[test]
fn who_comes_back_while_the_new_one_settles_is_needed() -> Result<()> {
    let (handle, (_supervisor, stage, _first, server)) = comes_back_within("10s")?;
    let service = stage.agent.service(PORT)?;
    let second = generations(&service)[&2];
    assert!(second.takes_new_connections, "{service:#?}");
    ensure!(!handle.ended_within(Duration::from_secs(1))?, "it may be needed");
    kill(Pid::from_raw(second.pids[0]), Signal::SIGKILL)?;
    stage.until("it to serve", PORT, |service| {
        service.generations.iter().any(|it| it.takes_new_connections && !it.launched)
    })?;
    assert_eq!(stage.generation(server.address())?, 1);
    ensure!(!handle.ended_within(Duration::ZERO)?, "it is all that there is");
    stage.namespace.clear()
}

#[test]
fn who_came_back_while_the_new_one_settled_is_ended_when_that_is_over() -> Result<()> {
    let (handle, (_supervisor, stage, _first, server)) = comes_back_within("2s")?;
    ensure!(handle.ended_within(LIMIT)?, "{}", stage.agent.run(&["events"])?.stdout);
    stage.until("it alone", PORT, |it| it.generations.len() == 1 && it.beside.is_empty())?;
    assert_eq!(stage.generation(server.address())?, 2);
    stage.detach(PORT)
}

#[test]
fn a_script_that_tries_the_server_three_times_goes_on() -> Result<()> {
    let tries = "for try in 1 2 3; do /usr/bin/python3 {}/server.py 8080 1 --reuse-port; done";
    let script = format!("{tries}; echo > {{}}/next; exec sleep 100");
    let (supervisor, stage, first) = supervised(&script)?;
    stage.switch(&Script::with(PORT, &["--reuse-port"])?, 2, &[])?;
    wait::until("its next step", LIMIT, || {
        Ok(supervisor.directory().join("next").exists().then_some(()))
    })?;
    stage.until_steady(PORT)?;
    assert!(tests::process::runs(first.pid()));
    stage.namespace.clear()
}

fn with_other_work_is_spared(supervisor: &[&str]) -> Result<()> {
    let supervisor = Commanded::new(PORT, supervisor)?;
    let (stage, first) = Stage::attached(&supervisor)?;
    let handle = Handle::open(first.pid())?;
    stage.switch(&Script::with(PORT, &["--reuse-port"])?, 2, &[])?;
    let service = stage.until("a warning", PORT, |service| !service.warnings.is_empty())?;
    assert!(service.warnings[0].contains("is left alone"), "{service:#?}");
    ensure!(!handle.ended_within(Duration::from_secs(1))?, "it has other jobs");
    let status = stage.agent.run(&["status"])?.success()?.stdout;
    assert!(status.contains("is left alone"), "{status}");
    stage.namespace.clear()
}

/// A parent that does something at first, and then starts the server again and again.
fn parent(first: &str) -> String {
    format!(
        "import os, socket, subprocess, threading, time
{first}
while True:
    subprocess.run(['/usr/bin/python3', '{{}}/server.py', '8080', '1', '--reuse-port'])"
    )
}

#[test]
fn a_supervisor_with_other_jobs_is_spared_and_shown() -> Result<()> {
    let after = "\n    subprocess.run(['timeout', '0.3', 'tail', '-f', '/dev/null'])";
    with_other_work_is_spared(&["/usr/bin/python3", "-c", &(parent("") + after)])
}

#[test]
fn so_is_one_that_serves_datagrams() -> Result<()> {
    let udp = parent("own = socket.socket(type=socket.SOCK_DGRAM); own.bind(('127.0.0.1', 7000))");
    with_other_work_is_spared(&["/usr/bin/python3", "-c", &udp])
}

#[test]
fn so_is_one_with_a_control_socket() -> Result<()> {
    let unix = parent("own = socket.socket(socket.AF_UNIX); own.bind('{}/control'); own.listen()");
    with_other_work_is_spared(&["/usr/bin/python3", "-c", &unix])
}

#[test]
fn so_is_one_with_a_thread() -> Result<()> {
    let thread = parent("threading.Thread(target=time.sleep, args=(600,), daemon=True).start()");
    with_other_work_is_spared(&["/usr/bin/python3", "-c", &thread])
}

#[test]
fn so_is_one_with_a_job_in_the_background() -> Result<()> {
    let server = "while :; do /usr/bin/python3 {}/server.py 8080 1 --reuse-port; done";
    for job in ["(while :; do date > {}/job; sleep 1; done) &", "sleep 600 &"] {
        with_other_work_is_spared(&["sh", "-c", &format!("{job} {server}")])?;
    }
    Ok(())
}

/// A version that crashes and is started again is upgraded for that reason. It cannot share the port, and has it before the
/// next one, which a shell starts.
fn crashes_while_the_next_one_starts(
    next: &str,
) -> Result<(Output, (Commanded, Stage, Started, Script))> {
    let (supervisor, stage, first) =
        supervised("while :; do /usr/bin/python3 {}/server.py 8080 1; done")?;
    let server = Script::new(PORT)?;
    let old = stage.agent.service(PORT)?.generations[0].pids[0];
    let next = ["sh", "-c", next].map(str::to_owned).into_iter().chain(server.command(2)?);
    let words = upgrade(PORT, &[], &next.collect::<Vec<_>>());
    let pending = stage.agent.start(&mut stage.agent.command(&words))?;
    stage.until("a candidate", PORT, |service| service.generations.len() == 2)?;
    kill(Pid::from_raw(old), Signal::SIGKILL)?;
    stage.until("the one that came back to serve", PORT, |service| {
        service.generations.iter().any(|it| it.number.0 == 3 && it.takes_new_connections)
    })?;
    assert_eq!(stage.generation(server.address())?, 1, "the old version");
    Ok((pending.finish()?, (supervisor, stage, first, server)))
}

#[test]
fn a_version_that_crashes_does_not_take_the_port_from_the_next_one() -> Result<()> {
    let (output, (_supervisor, stage, _first, server)) =
        crashes_while_the_next_one_starts("sleep 2; exec \"$0\" \"$@\"")?;
    output.success()?;
    stage.until_steady(PORT)?;
    assert_eq!(stage.generation(server.address())?, 2);
    // Its supervisor may just have started it once more.
    stage.namespace.clear()
}

#[test]
fn a_version_that_crashes_and_came_back_goes_on_where_the_next_one_fails() -> Result<()> {
    let (output, (_supervisor, stage, _first, server)) =
        crashes_while_the_next_one_starts("sleep 2; exit 3")?;
    assert_eq!(output.code, Some(5), "{output:#?}");
    let service = stage.until_steady(PORT)?;
    assert_eq!(generations(&service).into_keys().collect::<Vec<_>>(), [3]);
    assert_eq!(stage.generation(server.address())?, 1);
    stage.namespace.clear()
}
