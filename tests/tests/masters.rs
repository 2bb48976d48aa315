//! Masters that hold no listener, and processes that their server has left behind: who is born of whom when nothing was seen of
//! it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::process::Handle;
use tests::servers::{Inline, Script, Server};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// A master that forks its only worker, and forks the next one when that ends.
const FORKS_ONE_WORKER: &str = "
while worker := os.fork():
    os.waitpid(worker, 0)
listener = new_listener()
listener.bind(('::', port)); listener.listen(128)
";

#[test]
fn a_master_of_one_worker_is_of_its_generation_and_ends_with_it() -> Result<()> {
    let server = Inline::new(PORT, FORKS_ONE_WORKER)?;
    let (stage, first) = Stage::attached(&server)?;
    let master = Handle::open(first.pid())?;
    let service = stage.agent.service(PORT)?;
    let pids = &service.generations[0].pids;
    ensure!(pids.len() == 2 && pids.contains(&first.pid()), "{service:#?}");
    let worker = pids.iter().find(|pid| **pid != first.pid()).context("a worker")?;
    let cookie = service.generations[0].listeners[0].cookie;
    kill(Pid::from_raw(*worker), Signal::SIGKILL)?;
    let service = stage.until("the next worker's listener", PORT, |service| {
        let first = &service.generations[0];
        first.takes_new_connections && first.listeners.iter().any(|it| it.cookie != cookie)
    })?;
    assert_eq!(service.generations[0].number.0, 1, "{service:#?}");
    stage.switch(&server, 2, &[])?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].pids.len(), 2, "{service:#?}");
    assert!(master.ended_within(LIMIT)?, "it would fork another worker");
    assert_eq!(stage.listeners()?.len(), 1);
    Ok(())
}

/// Who serves in a forked process, and asks for upgrades in others, as a test of somebody's own does.
const DEPLOYS: &str = "
import os, socket, subprocess, sys, time
server, port, agent = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
listener = socket.create_server(('0.0.0.0', port), backlog=64)
if os.fork() == 0:
    os.close(1), os.close(2)
    while True:
        listener.accept()[0].close()
listener.close()
subprocess.run([*agent, 'attach', '--port', str(port)], check=True)
subprocess.run([*agent, 'upgrade', '--port', str(port), '--', 'python3', server, str(port), '2'], check=True)
os.wait()
print('lives')
";

#[test]
fn who_asks_is_not_taken_for_a_master() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    stage.agent.start_daemon()?;
    let agent = stage.agent.command::<&str>(&[]);
    let mut deploy = Command::new("python3");
    deploy.args(["-c", DEPLOYS]).arg(server.directory().join("server.py")).arg(PORT.to_string());
    deploy
        .arg(agent.get_program())
        .args(agent.get_args())
        .env("AGENT_CONFIG", stage.agent.configuration());
    let output = stage.namespace.output(&mut deploy)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.ends_with("lives\n"), "{output:?}");
    assert_eq!(stage.generation(server.address())?, 2);
    Ok(())
}

/// What it does after the second fork: it has lost its parent when the first one has ended, and listens when it is told.
const LEAVES_ONE_BEHIND: &str = "
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
first = os.fork()
if first == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    open(sys.argv[0] + '.left', 'w').write(str(os.getpid()))
    signal.sigwait({signal.SIGUSR2})
else:
    os.waitpid(first, 0)
listener = new_listener()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(('::', port)); listener.listen(128)
";

#[test]
fn a_process_that_the_server_had_left_behind_joins_when_it_listens() -> Result<()> {
    let server = Inline::new(PORT, LEAVES_ONE_BEHIND)?;
    let (stage, _first) = Stage::attached(&server)?;
    let file = server.directory().join("server.py.left");
    let left: i32 = wait::until("the one left behind", LIMIT, || {
        Ok(std::fs::read_to_string(&file).ok().and_then(|text| text.parse().ok()))
    })?;
    assert!(stage.agent.service(PORT)?.generations[0].pids.contains(&left));
    kill(Pid::from_raw(left), Signal::SIGUSR2)?;
    stage.until("its listener", PORT, |service| service.generations[0].listeners.len() == 2)?;
    // Nobody else knows of it.
    stage.namespace.clear()
}

/// Two daemons of one program, each on a port of its own.
const TWO_DAEMONS: &str = "
second = os.fork() == 0
if os.fork():
    os._exit(0) if second else os.wait()
    os._exit(0)
listener = new_listener()
listener.bind(('::', port + second)); listener.listen(128)
";

#[test]
fn another_daemon_of_the_same_start_is_not_of_the_server() -> Result<()> {
    let server = Inline::new(PORT, TWO_DAEMONS)?;
    let stage = Stage::new()?;
    stage.agent.start_daemon()?;
    let [python, script, port, number] = server.command(1)?.try_into().expect("four words");
    let mut start = Command::new(python);
    start.args([script, port, number]).stdin(Stdio::null());
    // They live longer than the test where it fails, and must not hold what it writes to.
    start.stdout(Stdio::null()).stderr(Stdio::null());
    stage.namespace.spawn(&mut start)?.wait()?;
    for port in [PORT, PORT + 1] {
        wait::until("both to listen", LIMIT, || Ok(stage.namespace.listens(port)?.then_some(())))?;
    }
    stage.agent.attach(PORT)?.success()?;
    let service = stage.agent.service(PORT)?;
    assert_eq!(service.generations[0].pids.len(), 1, "{service:#?}");
    stage.agent.attach(PORT + 1)?.success()?;
    stage.namespace.clear()
}
