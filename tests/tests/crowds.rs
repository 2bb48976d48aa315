//! Thousands of something, as a server may have them: others do not wait for whoever looks at each.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::servers::{Commanded, Script, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;
const NEIGHBOUR: u16 = 8081;

/// How long it takes to look at whatever each process of the machine has open, one by one.
fn time_of_looks_at_descriptors(at_least: usize) -> Result<Duration> {
    let begun = Instant::now();
    let mut seen = 0;
    for process in fs::read_dir("/proc")? {
        // Processes end meanwhile.
        let Ok(descriptors) = fs::read_dir(process?.path().join("fd")) else { continue };
        seen += descriptors
            .filter(|it| it.as_ref().is_ok_and(|it| it.path().read_link().is_ok()))
            .count();
    }
    ensure!(seen >= at_least, "only {seen} descriptors");
    Ok(begun.elapsed())
}

/// Whoever looks for the processes that have a listener looks at what each process has open.
#[test]
fn thousands_of_descriptors_of_somebody_keep_nobody_waiting() -> Result<()> {
    const BOMB: &str = "import os, resource, socket, sys, time
open = socket.socket()
resource.setrlimit(resource.RLIMIT_NOFILE, (15000, 15000))
for _ in range(39):
    if os.fork() == 0:
        break
try:
    while True:
        os.dup(open.fileno())
except OSError:
    pass
print('full', flush=True)
time.sleep(60)";
    let neighbour = Script::new(NEIGHBOUR)?;
    let (stage, _beside) = Stage::attached(&neighbour)?;
    let server = Script::new(PORT)?;
    let _first = stage.start(&server, 1)?;
    let mut bomb = std::process::Command::new("python3");
    bomb.args(["-c", BOMB]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut bomb = stage.namespace.spawn(&mut bomb)?;
    let told = bomb.stdout.take().context("its output")?;
    let full = BufReader::new(told).lines().take(40).filter(Result::is_ok).count();
    assert_eq!(full, 40, "processes with as many descriptors as they can have");

    let one_by_one = time_of_looks_at_descriptors(40 * 10_000)?;
    let begun = Instant::now();
    stage.agent.attach(PORT)?.success()?;
    let attached = begun.elapsed();
    ensure!(attached < one_by_one / 2, "the attach took {attached:?}, all looks {one_by_one:?}");
    stage.switch(&neighbour, 2, &["--settle", "0s"])?;
    stage.switch(&server, 2, &["--settle", "0s"])?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "all took {:?}", begun.elapsed());
    bomb.kill()?;
    bomb.wait()?;
    stage.namespace.clear()
}

/// The kernel programs add and remove members at any time, also while the agent reads who they are.
#[test]
fn a_server_that_forks_without_pause_keeps_no_other_one_waiting() -> Result<()> {
    const STORM: &str = "import os
for _ in range(19):
    if os.fork() == 0:
        break
while True:
    born = os.fork()
    if born == 0:
        os._exit(0)
    os.waitpid(born, 0)";
    let neighbour = Script::new(NEIGHBOUR)?;
    let (stage, _beside) = Stage::attached(&neighbour)?;
    let script = format!(
        "/usr/bin/python3 -c '{STORM}' & exec /usr/bin/python3 {{}}/server.py 8080 1 --reuse-port"
    );
    let forking = Commanded::new(PORT, &["sh", "-c", &script])?;
    let _first = stage.start(&forking, 1)?;
    let agent = stage.agent.daemon().context("an agent")?;
    let before = agent.processor_time()?;
    for generation in 2..=6 {
        stage.agent.attach(PORT)?.success()?;
        stage.agent.run(&["status"])?.success()?;
        stage.switch(&neighbour, generation, &["--settle", "0s"])?;
        stage.agent.detach(PORT)?.success()?;
    }
    // Whoever waits for the storm to end takes half a minute. On a machine without a processor to spare only this can be told.
    let spent = agent.processor_time()? - before;
    ensure!(spent < Duration::from_secs(3), "the agent worked for {spent:?}");
    stage.namespace.clear()
}

/// Somebody has to look at each of them. If that were the agent, one system call after the other, all services would wait.
#[test]
fn a_server_with_thousands_of_processes_keeps_no_other_one_waiting() -> Result<()> {
    const MANY: usize = 3_000;
    let neighbour = Script::new(NEIGHBOUR)?;
    let (stage, _beside) = Stage::attached(&neighbour)?;
    let crowd = Script::with(PORT, &["--idle", &MANY.to_string()])?;
    let first = stage.start(&crowd, 1)?;
    let children = format!("/proc/{0}/task/{0}/children", first.pid());
    wait::until("all of them", LIMIT, || {
        let born = fs::read_to_string(&children)?.split_ascii_whitespace().count();
        Ok((born == MANY).then_some(()))
    })?;
    let agent = stage.agent.daemon().context("an agent")?;
    let before = agent.processor_time()?;
    stage.agent.attach(PORT)?.success()?;
    let attached = agent.processor_time()?;
    stage.agent.run(&["status"])?.success()?;
    assert_eq!(stage.agent.service(PORT)?.generations[0].pids.len(), MANY + 1);
    let quick = Script::new(PORT)?;
    stage.switch(&quick, 2, &["--settle", "0s"])?;
    stage.until("the old one to be gone", PORT, |service| service.generations.len() == 1)?;
    let ended = agent.processor_time()?;
    let (attach, rest) = (attached - before, ended - attached);
    eprintln!("attach {attach:?}, status and upgrade {rest:?}");
    // Looked at one by one it was a millisecond of processor time for each of them, in both; now a tenth of that, and what other tests have
    // open at the same time.
    ensure!(attach < Duration::from_secs(2), "to attach {MANY} processes took {attach:?}");
    ensure!(rest < Duration::from_millis(3_500), "to end {MANY} processes took {rest:?}");
    stage.namespace.clear()
}

/// Whom the kernel programs follow has a share of their room: a candidate that they do not follow could not share its port.
#[test]
fn a_service_with_more_processes_than_are_followed_takes_the_room_of_no_other_one() -> Result<()> {
    /// Processes that share everything cost a few kilobytes each.
    const CROWD: &str = "import ctypes, mmap, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
pause = ctypes.cast(libc.pause, ctypes.c_void_p)
VM, FS, FILES, SIGHAND = 0x100, 0x200, 0x400, 0x800
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
stacks = mmap.mmap(-1, 17000 * 4096)
first = ctypes.addressof(ctypes.c_char.from_buffer(stacks))
for number in range(17000):
    top = first + (number + 1) * 4096 - 64
    if libc.clone(pause, top, VM | FS | FILES | SIGHAND, None) < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
open(sys.argv[2], \"w\").close()
time.sleep(120)";
    let neighbour = Script::new(NEIGHBOUR)?;
    let (stage, _beside) = Stage::attached(&neighbour)?;
    let script = format!(
        "/usr/bin/python3 -c '{CROWD}' {{}}/go {{}}/full & exec /usr/bin/python3 {{}}/server.py 8080 1 --reuse-port"
    );
    let crowd = Commanded::new(PORT, &["sh", "-c", &script])?;
    let _first = stage.start(&crowd, 1)?;
    stage.agent.attach(PORT)?.success()?;
    fs::write(crowd.directory().join("go"), "")?;
    wait::until("all of them", LIMIT, || {
        Ok(crowd.directory().join("full").exists().then_some(()))
    })?;
    stage.switch(&neighbour, 2, &["--settle", "0s"])?;

    let words = tests::agent::upgrade(PORT, &[], &Script::new(PORT)?.command(2)?);
    let refused = stage.agent.run(&words)?;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("follows 16384 of each service"), "{}", refused.stderr);
    stage.agent.detach(PORT)?.success()?;
    stage.switch(&neighbour, 3, &["--settle", "0s"])?;
    stage.namespace.clear()
}
