//! Which processes and listeners are a generation's: whatever is born of it, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use agent_api::{GenerationState, ServiceState, ServiceView};
use agent_load::Plan;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::process::{self, Handle};
use tests::servers::{Commanded, Inline, Node, Prefork, Script, Server};
use tests::stage::{LIMIT, Stage, generations, nobody_noticed};
use tests::wait;

const PORT: u16 = 8080;

/// By which listener connections were accepted, of so many.
fn listeners_used(stage: &Stage, connections: usize) -> Result<BTreeSet<u64>> {
    let streams = (0..connections)
        .map(|_| stage.connect(([127, 0, 0, 1], PORT).into()))
        .collect::<Result<Vec<_>>>()?;
    // Each worker has accepted what its own listener was given: the holder of a connection tells.
    let inodes: Vec<u64> = wait::until("all to be accepted", tests::stage::LIMIT, || {
        let flows = stage.flows(PORT)?;
        let inodes: Vec<u64> = flows.iter().filter_map(|it| Some(it.inode?.0)).collect();
        Ok((inodes.len() >= connections).then_some(inodes))
    })?;
    let holders = inodes.iter().filter_map(|inode| holder_of(*inode));
    let holders = holders.map(|pid| u64::try_from(pid).unwrap_or_default()).collect();
    drop(streams);
    Ok(holders)
}

fn holder_of(inode: u64) -> Option<i32> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors.into_iter().flatten().filter_map(Result::ok).any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|it| it.as_os_str() == wanted.as_str())
        })
    })
}

fn primary_listeners(service: &ServiceView) -> usize {
    let primary = service.generations.iter().find(|it| it.takes_new_connections);
    primary.map_or(0, |it| it.listeners.len())
}

#[test]
fn workers_that_come_later_get_connections() -> Result<()> {
    let server = Prefork::new(PORT, 2)?;
    let (stage, master) = Stage::attached(&server)?;
    stage.until("both", PORT, |service| primary_listeners(service) == 2)?;
    assert_eq!(listeners_used(&stage, 60)?.len(), 2);
    kill(Pid::from_raw(master.pid()), Signal::SIGHUP)?;
    stage.until("a third", PORT, |service| primary_listeners(service) == 3)?;
    assert_eq!(listeners_used(&stage, 60)?.len(), 3);
    Ok(())
}

#[test]
fn a_worker_that_is_recycled_is_followed_by_the_next_one() -> Result<()> {
    let server = Prefork::new(PORT, 2)?;
    let (stage, master) = Stage::attached(&server)?;
    let service = stage.until("both", PORT, |service| primary_listeners(service) == 2)?;
    let workers: BTreeSet<i32> = service.generations[0].pids.iter().copied().collect();
    let worker = workers.iter().find(|pid| **pid != master.pid()).context("a worker")?;
    let cookies = |service: &ServiceView| {
        service.generations[0].listeners.iter().map(|it| it.cookie).collect()
    };
    let before: BTreeSet<u64> = cookies(&service);
    kill(Pid::from_raw(*worker), Signal::SIGTERM)?;
    stage.until("another listener", PORT, |service| {
        let now: BTreeSet<u64> = cookies(service);
        now.len() == 2 && now != before
    })?;
    assert_eq!(listeners_used(&stage, 60)?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_holds_no_listener_ends_with_its_generation() -> Result<()> {
    let (old, new) = (Prefork::new(PORT, 3)?, Script::new(PORT)?);
    let (stage, master) = Stage::attached(&old)?;
    let load = stage.load(Plan { stream: None, upload: None, ..new.plan() })?;
    let handle = Handle::open(master.pid())?;
    stage.switch(&new, 2, &[])?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    assert!(handle.ended_within(tests::stage::LIMIT)?, "the master starts workers again");
    assert_eq!(stage.listeners()?.len(), 1, "a worker is left");
    nobody_noticed(load).await;
    stage.detach(PORT)
}

#[test]
fn a_server_that_somebody_restarts_is_the_next_generation() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    first.kill()?;
    stage.until("its end to be seen", PORT, |service| {
        service.generations[0].state == GenerationState::Dead
    })?;
    let second = stage.start(&server, 2)?;
    let service = stage.until("the next generation", PORT, |service| {
        service.generations.iter().any(|it| it.number.0 == 2 && it.takes_new_connections)
    })?;
    assert_eq!(service.generations.len(), 1, "{service:#?}");
    assert_eq!(service.generations[0].pids, [second.pid()]);
    assert_eq!(stage.generation(server.address())?, 2);
    stage.switch(&server, 3, &[])?;
    assert_eq!(stage.generation(server.address())?, 3);
    stage.until_steady(PORT).map(drop)
}

/// It is root until it has its listener, and known by what it is afterwards, which nothing reports.
#[test]
fn a_server_that_gives_up_root_later_is_known_again() -> Result<()> {
    let later = "import time
listener.bind(('::', port)); listener.listen(128)
time.sleep(0.2); os.setuid(65534)
";
    let server = Inline::new(PORT, later)?;
    let stage = Stage::new()?;
    stage.agent.start_daemon()?;
    let mut first = stage.start(&server, 1)?;
    let pid = first.pid();
    let is_nobody = || Ok((tests::process::user(pid)? == 65534).then_some(()));
    wait::until("it to give up root", tests::stage::LIMIT, is_nobody)?;
    stage.agent.attach(PORT)?.success()?;
    first.kill()?;
    let second = stage.start(&server, 2)?;
    let service = stage.until("the next generation", PORT, |service| {
        service.generations.iter().any(|it| it.number.0 == 2 && it.takes_new_connections)
    })?;
    assert_eq!(service.generations[0].pids, [second.pid()]);
    Ok(())
}

#[test]
fn a_server_that_is_restarted_while_no_agent_runs_is_the_next_generation_too() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    stage.agent.kill_daemon()?;
    first.kill()?;
    let second = stage.start(&server, 2)?;
    stage.agent.start_daemon()?;
    let service = stage.until("the next generation", PORT, |service| {
        service.generations.iter().any(|it| it.number.0 == 2 && it.takes_new_connections)
    })?;
    assert_eq!(service.generations[0].pids, [second.pid()]);
    Ok(())
}

/// The first agent knew that nobody served, and the next one is told of nothing that came meanwhile.
#[test]
fn a_server_that_is_started_beside_a_deaf_one_while_no_agent_runs_is_the_next_generation()
-> Result<()> {
    let (deaf, server) = (Script::with(PORT, &["--deaf"])?, Script::new(PORT)?);
    let (stage, first) = Stage::attached(&deaf)?;
    kill(Pid::from_raw(first.pid()), Signal::SIGUSR1)?;
    stage.until("nobody to listen", PORT, |it| it.state == ServiceState::Degraded)?;
    stage.agent.kill_daemon()?;
    let second = stage.start(&server, 2)?;
    stage.agent.start_daemon()?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    assert_eq!(service.generations[0].pids, [second.pid()]);
    Ok(())
}

/// What it is known by is not what served for a moment.
#[test]
fn a_server_that_serves_again_after_another_program_is_known_again() -> Result<()> {
    let (server, other) = (Script::new(PORT)?, Node::new(PORT)?);
    let (stage, mut first) = Stage::attached(&server)?;
    stage.agent.switch(PORT, &["--keep-old", "60s"], &other.command(2)?)?.success()?;
    stage.agent.undo(PORT)?.success()?;
    stage.until_steady(PORT)?;
    first.kill()?;
    let second = stage.start(&server, 3)?;
    let service = stage.until("the next generation", PORT, |service| {
        service.generations.iter().any(|it| it.number.0 == 3 && it.takes_new_connections)
    })?;
    assert_eq!(service.generations[0].pids, [second.pid()]);
    Ok(())
}

#[test]
fn another_program_on_the_port_of_a_dead_server_is_not_taken_for_it() -> Result<()> {
    let (server, other) = (Script::new(PORT)?, Node::new(PORT)?);
    let (stage, mut first) = Stage::attached(&server)?;
    first.kill()?;
    let _other = stage.start(&other, 7)?;
    // Its report was taken before this answer was given.
    let service = stage.agent.service(PORT)?;
    assert_eq!(service.generations[0].state, GenerationState::Dead, "{service:#?}");
    assert_eq!(service.generations.len(), 1);
    assert_eq!(stage.generation(other.address())?, 7, "the kernel's own lookup leads there");
    Ok(())
}

#[test]
fn a_server_that_executes_itself_anew_stays_itself() -> Result<()> {
    let server = Script::with(PORT, &["--exec-at-hup"])?;
    let (stage, first) = Stage::attached(&server)?;
    let cookie = stage.agent.service(PORT)?.generations[0].listeners[0].cookie;
    kill(Pid::from_raw(first.pid()), Signal::SIGHUP)?;
    let service = stage.until("its new listener", PORT, |service| {
        let known = &service.generations[0];
        known.takes_new_connections && known.listeners.iter().any(|it| it.cookie != cookie)
    })?;
    assert_eq!(service.generations[0].number.0, 1);
    assert_eq!(stage.generation(server.address())?, 1);
    stage.switch(&server, 2, &[])?;
    stage.until_steady(PORT).map(drop)
}

/// `sh -c 'server; true'`: the shell dies of the signal, and passes nothing on.
fn wrapped(server: &Script, generation: u32) -> Result<Vec<String>> {
    let words = server.command(generation)?.join(" ");
    Ok(vec!["sh".to_owned(), "-c".to_owned(), format!("{words}; true")])
}

#[test]
fn a_server_below_a_shell_that_swallows_the_signal_is_told_once() -> Result<()> {
    let notes = tempfile::NamedTempFile::new()?;
    let server = Script::with(PORT, &["--note-term", &notes.path().display().to_string()])?;
    let bare = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&bare)?;
    stage.agent.switch(PORT, &[], &wrapped(&server, 2)?)?.success()?;
    stage.until_steady(PORT)?;
    let third = server.command(3)?;
    stage.agent.switch(PORT, &["--stop-timeout", "1s"], &third)?.success()?;
    stage.until("the end of the second", PORT, |service| !generations(service).contains_key(&2))?;
    assert_eq!(fs::read_to_string(notes.path())?, "told\n");
    Ok(())
}

/// Prints which generation answers.
const ASK: &str = "import sys, urllib.request; \
    print(urllib.request.urlopen(\"http://127.0.0.1:\" + sys.argv[1], timeout=3).read().decode().strip())";

/// As a container has it: nothing of the machine's own processes and control groups is seen.
#[test]
fn an_agent_in_namespaces_of_its_own_upgrades() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let name = stage.agent.cgroup().file_name().context("a name")?.display().to_string();
    let agent = format!("{} --cgroup /{name}", stage.agent.binary().display());
    let command = |generation| Ok::<_, anyhow::Error>(server.command(generation)?.join(" "));
    let script = format!(
        "set -e
        answers() {{ python3 -c '{ASK}' {PORT}; }}
        mount -t tmpfs none /run; mount -t bpf bpf /sys/fs/bpf
        mount -t cgroup2 none /sys/fs/cgroup
        {first} & until answers; do :; done 2>/dev/null
        {agent} attach --port {PORT}
        {agent} upgrade --port {PORT} --wait drained -- {second}
        {agent} upgrade --port {PORT} --wait switched -- {third}
        test $(answers) = 3",
        first = command(1)?,
        second = command(2)?,
        third = command(3)?,
    );
    let mut contained = std::process::Command::new("timeout");
    contained.args(["--signal=KILL", "60", "unshare"]);
    contained.args(["--cgroup", "--pid", "--fork", "--mount-proc", "--mount", "--kill-child"]);
    contained.args(["bash", "-c", &script]).stdin(std::process::Stdio::null());
    let output = stage.namespace.spawn(
        contained.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()),
    )?;
    let output = output.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // Where the machine's own mount was is a place in the one that covers it.
    let root = stage.agent.cgroup().parent().context("a parent")?;
    let covered = root.join("unified").join(&name);
    ensure!(!covered.exists(), "a group was made where a covered mount was");
    Ok(())
}

#[test]
fn programs_that_follow_are_what_makes_workers_members() -> Result<()> {
    let server = Prefork::new(PORT, 2)?;
    let stage = Stage::new()?;
    stage.agent.start_daemon_without(&["follow_fork"])?;
    let master = stage.start(&server, 1)?;
    let listen = |count| {
        wait::until("all to listen", tests::stage::LIMIT, || {
            Ok((stage.listeners()?.len() == count).then_some(()))
        })
    };
    listen(2)?;
    stage.agent.attach(PORT)?.success()?;
    kill(Pid::from_raw(master.pid()), Signal::SIGHUP)?;
    listen(3)?;
    let service = stage.agent.service(PORT)?;
    let by_number: BTreeMap<_, _> = generations(&service);
    assert_eq!(by_number[&1].listeners.len(), 2, "it was followed by something else");
    Ok(())
}

#[test]
fn a_server_that_comes_beside_one_that_serves_is_told_of() -> Result<()> {
    let server = Script::with(PORT, &["--reuse-port"])?;
    let (stage, _first) = Stage::attached(&server)?;
    let _second = stage.start(&server, 2)?;
    wait::until("a warning", tests::stage::LIMIT, || {
        let events = stage.agent.run(&["events"])?.success()?.stdout;
        Ok(events.contains("get no new connection").then_some(()))
    })?;
    let service = stage.agent.service(PORT)?;
    assert_eq!(service.generations.len(), 1, "{service:#?}");
    for _ in 0..20 {
        assert_eq!(stage.generation(server.address())?, 1);
    }
    Ok(())
}

/// Its first thread ends before the others (`pthread_exit`), and takes what `/proc/PID/fd` shows along.
const FIRST_THREAD_ENDS: &str = "import ctypes, socket, threading, time
listener = socket.create_server(('0.0.0.0', 8080))
def serve():
    while True:
        connection, _ = listener.accept()
        connection.recv(999)
        connection.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n1\\n')
        connection.close()
threading.Thread(target=serve).start()
time.sleep(1)
ctypes.CDLL(None).pthread_exit(None)";

#[test]
fn a_server_whose_first_thread_has_ended_ends_in_time() -> Result<()> {
    let next = Script::new(PORT)?;
    let server = Commanded::new(PORT, &["/usr/bin/python3", "-c", FIRST_THREAD_ENDS])?;
    let (stage, first) = Stage::attached(&server)?;
    let ended = || Ok((!process::runs(first.pid())).then_some(()));
    wait::until("its first thread to end", LIMIT, ended)?;
    stage.switch(&next, 2, &["--drain-timeout", "1s", "--stop-timeout", "1s"])?;
    stage.until_steady(PORT)?;
    assert_eq!(stage.generation(next.address())?, 2);
    stage.detach(PORT)
}

/// Of what it was given nothing can be seen any more.
#[test]
fn a_server_whose_first_thread_has_ended_before_is_refused_in_words() -> Result<()> {
    let server = Commanded::new(PORT, &["/usr/bin/python3", "-c", FIRST_THREAD_ENDS])?;
    let stage = Stage::new()?;
    let first = stage.start(&server, 1)?;
    let ended = || Ok((!process::runs(first.pid())).then_some(()));
    wait::until("its first thread to end", LIMIT, ended)?;
    let refused = stage.agent.attach(PORT)?;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("its first thread has ended before"), "{}", refused.stderr);
    Ok(())
}
