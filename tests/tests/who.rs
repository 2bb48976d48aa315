//! Who holds a listener is not the server for that: a mere holder is neither copied nor told to end, and in doubt nothing
//! is attached.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use agent_load::Plan;
use anyhow::{Context as _, Result};
use tests::process::{children, listener_of, runs, user};
use tests::servers::{Commanded, Script, Server as _, Started};
use tests::stage::{LIMIT, Stage, nobody_noticed, until_answers};
use tests::wait;

const PORT: u16 = 8080;
const OTHER: u16 = 8081;
const NOBODY: u32 = 65_534;
/// The one that every user may run: the first on the path may be somebody's own.
const PYTHON: &str = "/usr/bin/python3";

/// A super-server of root's on these ports, with a server of a user's on each, which all answer; with its files.
fn super_server(stage: &Stage, user: u32, ports: &[u16]) -> Result<(Commanded, Started, Vec<i32>)> {
    let numbers: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let user = user.to_string();
    let mut command = vec![PYTHON, "{}/super.py", &user];
    command.extend(numbers.iter().map(String::as_str));
    let server = Commanded::new(ports[0], &command)?;
    let started = stage.start(&server, 1)?;
    for port in ports {
        assert_eq!(answer(stage, *port)?, 1);
    }
    let children = children(started.pid())?;
    assert_eq!(children.len(), ports.len());
    Ok((server, started, children))
}

fn answer(stage: &Stage, port: u16) -> Result<u32> {
    stage.generation(SocketAddr::from(([127, 0, 0, 1], port)))
}

#[tokio::test]
async fn a_super_server_is_neither_copied_nor_told_to_end() -> Result<()> {
    let stage = Stage::new()?;
    let (_files, mut parent, children) = super_server(&stage, NOBODY, &[PORT, OTHER])?;
    let (parent_pid, child) = (parent.pid().to_string(), children[0].to_string());

    let said = stage.refused(&["attach", "--port", "8080"], 4)?;
    for word in [&parent_pid, &child, "also on port 8081", &format!("`--pid {child}`")] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(stage.agent.daemon().is_none(), "an agent that was started in vain ends");

    let attached = stage.attach(PORT, &["--pid", &child])?;
    assert_eq!(attached.service.generations[0].pids, [children[0]]);
    let left_alone =
        |warning: &String| warning.contains(&parent_pid) && warning.contains("left alone");
    assert!(attached.warnings.iter().any(left_alone), "{:?}", attached.warnings);

    let next = Script::new(PORT)?;
    let running = stage.load(Plan::http(next.address()).one_shot(50))?;
    let other = SocketAddr::from(([127, 0, 0, 1], OTHER));
    let beside = stage.load(Plan::http(other).one_shot(50).generations(1..=1))?;
    until_answers(&running, 1, 10)?;
    let mut command = next.command(2)?;
    PYTHON.clone_into(&mut command[0]);
    stage.agent.upgrade(PORT, &command)?.success()?;
    until_answers(&running, 2, 10)?;
    // Not steady: with its port moved, the super-server, which holds the public one, would get what it leaves.
    let service = stage.until("the first to go", PORT, |service| service.generations.len() == 1)?;
    assert_eq!(user(service.generations[0].pids[0])?, NOBODY);
    assert!(parent.lives()? && runs(children[1]), "the super-server and its other server live");
    nobody_noticed(running).await;
    nobody_noticed(beside).await;
    Ok(())
}

#[test]
fn a_super_server_of_the_same_user_is_known_by_its_other_port() -> Result<()> {
    let stage = Stage::new()?;
    let (_files, parent, children) = super_server(&stage, 0, &[PORT, OTHER])?;
    let said = stage.refused(&["attach", "--port", "8080"], 4)?;
    assert!(said.contains("also on port 8081"), "{said}");

    // All of it together is one server.
    let attached = stage.attach(PORT, &["--port", "8081"])?;
    assert_eq!(attached.warnings, Vec::<String>::new());
    let mut pids = attached.service.generations[0].pids.clone();
    pids.sort_unstable();
    let mut all = [&[parent.pid()], &children[..]].concat();
    all.sort_unstable();
    assert_eq!(pids, all);
    Ok(())
}

#[test]
fn a_master_and_workers_that_were_executed_anew_are_one_server() -> Result<()> {
    let stage = Stage::new()?;
    let (_files, parent, children) = super_server(&stage, 0, &[PORT])?;
    let attached = stage.attach(PORT, &[])?;
    assert_eq!(attached.service.generations[0].pids, [parent.pid(), children[0]]);
    assert_eq!(attached.warnings, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_listener_that_a_user_passed_to_root_makes_root_no_server() -> Result<()> {
    let stage = Stage::new()?;
    let nobody = NOBODY.to_string();
    let command = ["setpriv", "--reuid", &nobody, "--regid", &nobody, "--clear-groups"];
    let server = [PYTHON, "{}/server.py", "8080", "1"];
    let server = Commanded::new(PORT, &[&command[..], &server].concat())?;
    let started = stage.start(&server, 1)?;
    let _passed_on = listener_of(started.pid())?;
    let (server, root) = (started.pid().to_string(), std::process::id().to_string());

    let said = stage.refused(&["attach", "--port", "8080"], 4)?;
    assert!(said.contains(&root) && said.contains(&format!("`--pid {server}`")), "{said}");
    let said = stage.refused(&["attach", "--port", "8080", "--pid", &root], 4)?;
    assert!(said.contains("uid 65534"), "{said}");

    let attached = stage.attach(PORT, &["--pid", &server])?;
    assert_eq!(attached.service.generations[0].pids, [started.pid()]);
    assert!(attached.warnings.iter().any(|it| it.contains(&root)), "{:?}", attached.warnings);
    Ok(())
}

#[test]
fn a_master_that_holds_nothing_can_be_named() -> Result<()> {
    let stage = Stage::new()?;
    let worker = "python3 {}/server.py 8080 1 --reuse-port &";
    let server = Commanded::new(PORT, &["sh", "-c", &format!("{worker} {worker} wait")])?;
    let started = stage.start(&server, 1)?;
    wait::until("both workers to listen", LIMIT, || {
        Ok((stage.listeners()?.len() == 2).then_some(()))
    })?;
    let master = started.pid();
    let attached = stage.attach(PORT, &["--pid", &master.to_string()])?;
    let expected = [&[master], &children(master)?[..]].concat();
    assert_eq!(attached.service.generations[0].pids, expected);
    Ok(())
}

#[test]
fn a_listener_without_a_descriptor_is_found_in_its_ring() -> Result<()> {
    let stage = Stage::new()?;
    let server = Commanded::new(PORT, &["python3", "{}/ring.py", "8080"])?;
    let started = stage.start(&server, 1)?;
    wait::until("the descriptor to be closed", LIMIT, || {
        Ok(listener_of(started.pid()).is_err().then_some(()))
    })?;
    let attached = stage.attach(PORT, &[])?;
    assert_eq!(attached.service.generations[0].pids, [started.pid()]);

    // And so is that of a candidate.
    let next = Commanded::new(9090, &["python3", "{}/ring.py", "9090"])?;
    let next = stage.start(&next, 2)?;
    let pid = next.pid().to_string();
    let words = ["upgrade", "--port", "8080", "--dry-run", "--pid", &pid];
    let preview = stage.agent.run(&words)?.success()?.stdout;
    assert!(preview.contains(&format!("listeners of the processes {pid}")), "{preview}");
    Ok(())
}

/// So many are not looked at one by one.
#[test]
fn a_listener_behind_hundreds_of_descriptors_is_found() -> Result<()> {
    const FULL: &str = "import os, sys
for _ in range(400):
    os.set_inheritable(os.dup(0), True)
os.execv(sys.argv[1], sys.argv[1:])";
    let server = ["/usr/bin/python3", "-c", FULL, "/usr/bin/python3", "{}/server.py", "8080", "1"];
    let server = Commanded::new(8080, &server)?;
    // The first one is found by an agent that has begun before, and by one that has not.
    let (stage, first) = Stage::attached(&server)?;
    let service = stage.agent.service(8080)?;
    assert_eq!(service.generations[0].pids, [first.pid()]);
    stage.switch(&server, 2, &[])?;
    stage.until_steady(8080)?;
    stage.detach(8080)
}

/// No process has it by the descriptors that `/proc` shows of it. The kernel lists those of threads too, and nobody those of messages.
#[test]
fn a_listener_that_only_a_thread_has_is_seen_and_one_in_a_message_is_told_of() -> Result<()> {
    const LISTENS: &str = "import ctypes, os, socket, sys, threading, time
listener = socket.create_server(('0.0.0.0', 8080))
ready = threading.Event()
def keep():
    # A table of descriptors of its own (CLONE_FILES).
    if ctypes.CDLL(None, use_errno=True).unshare(0x400):
        os._exit(ctypes.get_errno())
    ready.set()
    time.sleep(600)
if sys.argv[1] == 'thread':
    threading.Thread(target=keep).start()
    ready.wait()
else:
    here, there = socket.socketpair()
    socket.send_fds(here, [b'x'], [listener.fileno()])
os.close(listener.detach())
print('left', flush=True)
time.sleep(600)";
    for whose in ["thread", "message"] {
        let stage = Stage::new()?;
        let mut server = Command::new(PYTHON);
        server.args(["-c", LISTENS, whose]).stdout(Stdio::piped());
        let mut server = stage.namespace.spawn(&mut server)?;
        let mut said = String::new();
        BufReader::new(server.stdout.as_mut().context("its output")?).read_line(&mut said)?;
        assert_eq!(said, "left\n");
        let answer = stage.agent.attach(PORT)?;
        if whose == "thread" {
            answer.success()?;
            // The next one is looked for among its own processes.
            let next = [PYTHON, "-c", LISTENS, whose].map(str::to_owned);
            let options = ["--ready", "listen", "--settle", "0s", "--timeout", "5s"];
            stage.agent.switch(PORT, &options, &next)?.success()?;
        } else {
            assert_eq!(answer.code, Some(4), "{answer:?}");
            let meant = "or a message under way in a Unix socket";
            assert!(answer.stderr.contains(meant), "{answer:?}");
        }
        server.kill()?;
        server.wait()?;
    }
    Ok(())
}
