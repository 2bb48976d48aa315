//! Services beside each other: what goes wrong with one is nothing to the others.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::process::Handle;
use tests::servers::{Commanded, Script, Server as _, Started};
use tests::stage::{LIMIT, Stage, generations, until_answers};
use tests::wait;

const PORT: u16 = 8080;
const NEIGHBOUR: u16 = 8081;

/// A step of the agent that fails for as long as this lives.
struct Failing(PathBuf);

impl Failing {
    fn always(stage: &Stage, step: &str) -> Result<Self> {
        let faults = stage.agent.runtime().join("faults");
        fs::create_dir_all(&faults)?;
        let armed = faults.join("armed");
        fs::write(&armed, format!("fail-always {step} 0\n"))?;
        Ok(Self(armed))
    }

    fn mend(self) -> Result<()> {
        // The agent may just be looking at it.
        wait::until("the fault to be there", LIMIT, || Ok(fs::remove_file(&self.0).ok()))
    }
}

/// A service that does not end when it is told to, and one beside it.
fn neighbours() -> Result<(Stage, [Script; 2], [Started; 2])> {
    let stubborn = Script::with(PORT, &["--note-term", "/dev/null"])?;
    let (stage, first) = Stage::attached(&stubborn)?;
    let neighbour = Script::new(NEIGHBOUR)?;
    let beside = stage.start(&neighbour, 1)?;
    stage.agent.attach(NEIGHBOUR)?.success()?;
    Ok((stage, [stubborn, neighbour], [first, beside]))
}

#[tokio::test]
async fn what_cannot_be_done_for_one_service_keeps_no_other_one_waiting() -> Result<()> {
    let (stage, [stubborn, neighbour], [first, _beside]) = neighbours()?;
    let first = Handle::open(first.pid())?;
    let failing = Failing::always(&stage, "kill")?;
    let options = ["--stop-timeout", "100ms", "--settle", "0s"];
    stage.switch(&stubborn, 2, &options)?;
    stage.until("the trouble", PORT, |service| !service.troubles.is_empty())?;
    assert_eq!(stage.agent.service(NEIGHBOUR)?.troubles, [""; 0], "it is not the neighbour's");
    let load = stage.busy(&neighbour)?;
    for generation in 2..=4 {
        stage.switch(&neighbour, generation, &["--keep-old", "1m"])?;
        until_answers(&load, generation, 20)?;
    }
    stage.agent.run(&["undo", "8081", "--wait", "switched"])?.success()?;
    until_answers(&load, 3, 20)?;
    let summary = load.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    ensure!(!first.ended_within(Duration::ZERO)?, "nobody could kill it");
    failing.mend()?;
    ensure!(first.ended_within(LIMIT)?, "it is killed in the end");
    stage.until_steady(PORT)?;
    stage.namespace.clear()
}

/// A server in a file system that it serves itself, which answers nothing as long as the file `silent` is there.
fn away() -> Result<Commanded> {
    let away = ["/usr/bin/python3", "{}/away.py", "{}/own", "{}/silent"];
    let server = ["/usr/bin/python3", "{}/server.py", "8080", "1", "--reuse-port"];
    Commanded::new(PORT, &[&away[..], &server].concat())
}

fn is_fuse_there() -> bool {
    let there = fs::exists("/dev/fuse").is_ok_and(|it| it);
    if !there {
        eprintln!("skipped: this machine has no file systems of servers (`/dev/fuse`)");
    }
    there
}

/// What is below it is asked for by launches and by looks at PID files.
#[test]
fn a_file_system_of_a_server_that_does_not_answer_keeps_no_other_one_waiting() -> Result<()> {
    if !is_fuse_there() {
        return Ok(());
    }
    let neighbour = Script::new(NEIGHBOUR)?;
    let (stage, _beside) = Stage::attached(&neighbour)?;
    let away = away()?;
    let _first = stage.start(&away, 1)?;
    stage.agent.attach(PORT)?.success()?;
    fs::write(away.directory().join("silent"), "")?;

    let next = Script::new(PORT)?;
    let words = tests::agent::upgrade(PORT, &[], &next.command(2)?);
    let begun = Instant::now();
    let refused = stage.agent.start(&mut stage.agent.command(&words))?;
    for generation in 2..=3 {
        stage.switch(&neighbour, generation, &["--settle", "0s"])?;
    }
    // Without patience it takes as long as the file system is silent.
    ensure!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    let refused = refused.finish()?;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("keeps whoever asks for it waiting"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--cwd"), "{}", refused.stderr);
    // A directory that answers is as good.
    stage.switch(&next, 2, &["--cwd", "/", "--namespaces", "agent"])?;
    stage.switch(&neighbour, 4, &["--settle", "0s"])?;
    stage.until_steady(PORT)?;
    fs::remove_file(away.directory().join("silent"))?;
    stage.namespace.clear()
}

/// The kernel lets a thread wait for an answer that is on its way, also when it is killed.
#[test]
fn a_file_system_of_a_server_that_does_not_answer_keeps_no_agent_from_starting() -> Result<()> {
    if !is_fuse_there() {
        return Ok(());
    }
    let (stage, away) = (Stage::new()?, away()?);
    let _first = stage.start(&away, 1)?;
    stage.agent.attach(PORT)?.success()?;
    let silent = away.directory().join("silent");
    fs::write(&silent, "")?;
    let next = Script::new(PORT)?;
    let words = tests::agent::upgrade(PORT, &[], &next.command(2)?);
    for replaces in [false, true] {
        assert_eq!(stage.agent.run(&words)?.code, Some(4));
        let stuck = stage.agent.daemon().context("an agent")?;
        let pid = stuck.pid();
        if replaces {
            stage.agent.run(&["daemon", "--replace", "--background"])?.success()?;
        } else {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            // Its other threads end at any moment.
            let start = || Ok(stage.agent.start_daemon().ok());
            wait::until("the next agent to start", LIMIT, start)?;
        }
        ensure!(!stuck.ended_within(Duration::ZERO)?, "a thread of it waits for an answer");
    }
    fs::remove_file(silent)?;
    wait::until("an upgrade", LIMIT, || Ok(stage.agent.run(&words)?.success().ok()))?;
    stage.until_steady(PORT)?;
    stage.namespace.clear()
}

/// Whatever the reason: a family that has more processes than the kernel's table, say.
#[test]
fn a_generation_that_cannot_be_followed_keeps_no_agent_from_starting() -> Result<()> {
    let (stage, [_stubborn, neighbour], _started) = neighbours()?;
    stage.agent.kill_daemon()?;
    let failing = Failing::always(&stage, "follow-processes")?;
    stage.agent.start_daemon()?;
    for port in [PORT, NEIGHBOUR] {
        let troubles = stage.agent.service(port)?.troubles;
        assert!(
            troubles.iter().any(|it| it.contains("cannot follow generation 1")),
            "{troubles:?}"
        );
    }
    failing.mend()?;
    stage.until_steady(PORT)?;
    stage.switch(&neighbour, 2, &[])?;
    stage.until_steady(NEIGHBOUR)?;
    stage.namespace.clear()
}

/// A service with a generation to go back to.
fn upgraded() -> Result<(Stage, Script, Started)> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &["--keep-old", "1m"])?;
    Ok((stage, server, first))
}

/// It is the operator's way out, and has not happened until the kernel says so.
#[test]
fn an_undo_that_does_not_reach_the_kernel_is_no_success() -> Result<()> {
    let (stage, server, _first) = upgraded()?;
    let failing = Failing::always(&stage, "steer")?;
    let undone = stage.agent.run(&["undo", "8080", "--wait", "switched"])?;
    assert_ne!(undone.code, Some(0), "{undone:#?}");
    assert!(undone.stderr.contains("generation 2 still does"), "{undone:#?}");
    assert_eq!(stage.generation(server.address())?, 2);
    failing.mend()?;
    wait::until("the switch", LIMIT, || {
        Ok((stage.generation(server.address())? == 1).then_some(()))
    })?;
    stage.namespace.clear()
}

#[test]
fn an_undo_does_not_wait_for_a_full_disk() -> Result<()> {
    let (stage, server, _first) = upgraded()?;
    let failing = Failing::always(&stage, "write-state")?;
    stage.agent.run(&["undo", "8080", "--wait", "switched"])?.success()?;
    assert_eq!(stage.generation(server.address())?, 1);
    let status = stage.agent.run(&["status"])?.success()?.stdout;
    assert!(status.contains("until the state is saved"), "{status}");
    failing.mend()?;
    stage.until_steady(PORT)?;
    stage.namespace.clear()
}

/// Servers use them for commands of their own.
#[test]
fn a_real_time_signal_ends_a_generation_like_any_other() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    let first = Handle::open(first.pid())?;
    stage
        .agent
        .run(&tests::agent::upgrade(PORT, &["--drain-signal", "RTMIN+1"], &server.command(2)?))?
        .success()?;
    ensure!(first.ended_within(LIMIT)?);
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains("told to end (signal 35)") && !events.contains("killed"), "{events}");
    stage.detach(PORT)
}

/// A server that was launched by the agent is its child, whoever manages it.
#[test]
fn a_server_that_ends_after_the_detach_leaves_no_zombie() -> Result<()> {
    let (stage, [_stubborn, neighbour], _started) = neighbours()?;
    stage.switch(&neighbour, 2, &[])?;
    stage.until_steady(NEIGHBOUR)?;
    let pid = stage.agent.service(NEIGHBOUR)?.generations[0].pids[0];
    let launched = Handle::open(pid)?;
    stage.agent.detach(NEIGHBOUR)?.success()?;
    launched.kill()?;
    wait::until("its end", LIMIT, || {
        Ok((!PathBuf::from(format!("/proc/{pid}")).exists()).then_some(()))
    })?;
    stage.namespace.clear()
}

/// A process can have its children be those of its own parent (`CLONE_PARENT`), who has never heard of them.
#[test]
fn children_that_a_server_gives_to_the_launcher_leave_no_zombies() -> Result<()> {
    const GIVE: &str = "import ctypes, os, platform, sys
CLONE_PARENT, SIGCHLD = 0x8000, 17
number = {\"x86_64\": 56, \"aarch64\": 220}[platform.machine()]
for _ in range(300):
    if ctypes.CDLL(None).syscall(number, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)
os.execv(sys.argv[1], sys.argv[1:])";
    let (stage, [_, _neighbour], _started) = neighbours()?;
    let script =
        format!("exec /usr/bin/python3 -c '{GIVE}' /usr/bin/python3 {{}}/server.py 8080 2");
    let giving = Commanded::new(PORT, &["sh", "-c", &script])?;
    stage.switch(&giving, 2, &["--cwd", "/", "--stop-timeout", "100ms"])?;
    let service = stage.until_steady(PORT)?;
    let server = service.generations[0].pids[0];
    let parent = |pid: i32| -> Result<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(") ").context("a stat")?.1;
        Ok(fields.split(' ').nth(1).context("a parent")?.parse()?)
    };
    let launcher = parent(server)?;
    wait::until("no zombie", LIMIT, || {
        let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"))?;
        Ok((children.split_ascii_whitespace().count() == 1).then_some(()))
    })?;
    stage.namespace.clear()
}

/// Whoever the server runs as can stop the process that is to become it, once it is his. That takes luck: here it is frozen.
#[test]
fn a_launch_that_is_stopped_on_its_way_keeps_nobody_waiting() -> Result<()> {
    let (stage, [stubborn, neighbour], _started) = neighbours()?;
    let name = stage.agent.service(PORT)?.name.to_string();
    let group = stage.agent.cgroup_of(&name, 2)?;
    fs::create_dir(&group)?;
    fs::write(group.join("cgroup.freeze"), "1")?;
    let options = ["--timeout", "1m", "--stop-timeout", "100ms"];
    let upgrade = tests::agent::upgrade(PORT, &options, &stubborn.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    let pid = wait::until("the candidate to be frozen", LIMIT, || {
        let pid = fs::read_to_string(group.join("cgroup.procs"))?.trim().parse().ok();
        Ok(pid.filter(|_| {
            fs::read_to_string(group.join("cgroup.events")).is_ok_and(|it| it.contains("frozen 1"))
        }))
    })?;
    let stopped = Handle::open(pid)?;
    assert_eq!(stopped.program(), stage.agent.binary().canonicalize()?, "it is on its way");

    let begun = Instant::now();
    stage.switch(&neighbour, 2, &["--settle", "0s", "--keep-old", "1m"])?;
    stage.agent.run(&["undo", "8081", "--wait", "switched"])?.success()?;
    assert_eq!(stage.generation(neighbour.address())?, 1);
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());

    stage.agent.run(&["undo", "8080"])?.success()?;
    assert_eq!(upgrade.finish()?.code, Some(5));
    ensure!(stopped.ended_within(LIMIT)?, "it is killed in the end");
    stage.until_steady(PORT)?;
    stage.namespace.clear()
}

#[test]
fn a_service_with_thousands_of_listeners_leaves_room_for_others() -> Result<()> {
    let (stage, [_stubborn, neighbour], _started) = neighbours()?;
    let greedy = Script::with(PORT, &["--reuse-port", "--listeners", "2100"])?;
    let options = ["upgrade", "8080", "--stop-timeout", "100ms", "--"].map(str::to_owned);
    stage.agent.run(&[&options[..], &greedy.command(2)?].concat())?;
    // It may be ready before it has opened them all.
    wait::until("it to be told", LIMIT, || {
        let events = stage.agent.run(&["events"])?.success()?.stdout;
        Ok(events.contains("half of what other services leave").then_some(()))
    })?;
    stage.switch(&neighbour, 2, &[])?;
    assert_eq!(stage.generation(neighbour.address())?, 2);
    stage.namespace.clear()
}

/// Each of its binds is moved, and told.
#[test]
fn what_a_server_does_in_a_loop_is_told_as_a_number() -> Result<()> {
    let (stage, [_stubborn, neighbour], _started) = neighbours()?;
    let flood = "import socket, time\nend = time.time() + 20\nwhile time.time() < end:\n    s = socket.socket()\n    \
                 s.bind((\"0.0.0.0\", 8080))\n    s.close()";
    let script = format!(
        "/usr/bin/python3 -c '{flood}' & exec /usr/bin/python3 {{}}/server.py 8080 2 --reuse-port"
    );
    let flooding = Commanded::new(PORT, &["sh", "-c", &script])?;
    let options = ["--user", "65534", "--cwd", "/"];
    stage.agent.switch(PORT, &options, &flooding.command(2)?)?.success()?;
    let untold = "more of this kind, too many to be told one by one";
    let events = wait::until("events that are not told", LIMIT, || {
        let events = stage.agent.run(&["events"])?.success()?.stdout;
        Ok(events.contains(untold).then_some(events))
    })?;
    let moved = events.lines().filter(|line| line.contains("its bind was moved")).count();
    assert!(moved < 100, "{moved} events of one kind");
    assert!(events.contains("attached to python3-8081"), "what came before is there: {events}");
    let begun = Instant::now();
    stage.switch(&neighbour, 2, &["--settle", "0s"])?;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    stage.agent.run(&["undo", "8080", "--stop-timeout", "100ms"])?;
    stage.namespace.clear()
}

/// Whoever changes the room of a file has its lock as long as that takes, and whoever else changes it waits for all before him.
#[test]
fn a_server_that_has_the_lock_of_its_own_output_keeps_no_other_one_waiting() -> Result<()> {
    const HOLD: &str = "import ctypes, os
libc = ctypes.CDLL(None)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
for _ in range(15):
    if os.fork() == 0:
        break
while True:
    libc.fallocate(1, 1, 0, 300 << 20)
    os.ftruncate(1, 0)";
    let (stage, [_, neighbour], [_first, _beside]) = neighbours()?;
    let script =
        format!("/usr/bin/python3 -c '{HOLD}' & exec /usr/bin/python3 {{}}/server.py 8080 2");
    let holding = Commanded::new(PORT, &["sh", "-c", &script])?;
    let options = ["--cwd", "/", "--settle", "0s", "--stop-timeout", "100ms"];
    stage.switch(&holding, 2, &options)?;
    let service = stage.agent.service(PORT)?;
    let log = generations(&service)[&2].log.clone().context("it was launched")?;
    wait::until("it to take room", LIMIT, || {
        Ok((fs::metadata(&log)?.blocks() * 512 > 4 << 20).then_some(()))
    })?;
    let mut took = Vec::new();
    for generation in 2..=6 {
        let begun = Instant::now();
        stage.switch(&neighbour, generation, &["--settle", "0s"])?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    // Alone half a tenth of a second, and seconds where the agent waits for the lock.
    ensure!(took[2] < Duration::from_secs(1), "an upgrade took {took:?}");
    stage.namespace.clear()
}
