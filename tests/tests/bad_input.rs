//! Whatever is asked for that cannot be done: its exit code, a message that names the thing, and nothing changed.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use agent_api::GenerationState;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::agent::Output;
use tests::namespace::{ADDRESS, Namespace};
use tests::servers::{self, Node, Script, Server, Started};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

/// What must be the same afterwards.
#[derive(Debug, PartialEq)]
struct World {
    status: Option<Value>,
    traces: Vec<PathBuf>,
    listeners: Vec<u64>,
}

fn world(stage: &Stage) -> Result<World> {
    let status = match stage.agent.daemon() {
        None => None,
        Some(_) => {
            let mut status = stage.agent.status()?;
            without_age(&mut status);
            Some(status)
        }
    };
    let listeners = stage.listeners()?.iter().map(|listener| listener.cookie.0).collect();
    let mut traces = stage.traces()?;
    // What an agent said before it refused to start, and the lock that it had meanwhile.
    traces.retain(|path| !path.ends_with("agent.log") && !path.ends_with("lock"));
    Ok(World { status, traces, listeners })
}

/// Nor what it says of the last rollout that failed.
fn without_age(status: &mut Value) {
    for service in status["services"].as_array_mut().into_iter().flatten() {
        service["setback"] = Value::Null;
        for generation in service["generations"].as_array_mut().into_iter().flatten() {
            generation["age"] = Value::Null;
        }
    }
}

/// Runs a command that must be refused with a code and say these words, and compares the world.
fn refused(stage: &Stage, arguments: &[&str], code: i32, words: &[&str]) -> Result<Output> {
    let before = world(stage)?;
    let output = stage.agent.run(arguments)?;
    check(&output, code, words);
    assert_eq!(world(stage)?, before, "{arguments:?}");
    Ok(output)
}

fn check(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "`{word}` is not in: {output:?}");
    }
}

/// An upgrade that fails only when it has been tried: the status but for the number of the next generation is the same.
fn tried_in_vain(
    stage: &Stage,
    options: &[&str],
    argv: &[String],
    code: i32,
    words: &[&str],
) -> Result<()> {
    let before = world(stage)?;
    let output = stage.agent.switch(PORT, options, argv)?;
    check(&output, code, words);
    stage.until_steady(PORT)?;
    let mut after = world(stage)?;
    after.traces.retain(|path| !is_log(path));
    let without_logs = |path: &&PathBuf| !is_log(path);
    let traces: Vec<_> = before.traces.iter().filter(without_logs).cloned().collect();
    assert_eq!(after, World { traces, ..before });
    Ok(())
}

/// The output of a candidate is kept, and is the only thing that may be new.
fn is_log(path: &std::path::Path) -> bool {
    path.components().any(|part| part.as_os_str() == "services")
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_port_on_which_nothing_listens() -> Result<()> {
    let stage = Stage::new()?;
    let server = Node::new(8081)?;
    let _first = stage.start(&server, 1)?;
    refused(&stage, &["attach", "--port", "8080"], 4, &["nothing listens on port 8080", "8081"])?;
    assert!(stage.agent.daemon().is_none(), "an agent that was started in vain ends");
    refused(&stage, &["attach", "--port", "8081", "--address", ADDRESS, "--name", "8"], 2, &["8"])?;
    Ok(())
}

#[tokio::test]
async fn several_unrelated_servers_on_one_port() -> Result<()> {
    let stage = Stage::new()?;
    let server = Script::with(PORT, &["--reuse-port"])?;
    let one = stage.start(&server, 1)?;
    let other = stage.start(&server, 2)?;
    wait::until("both to listen", LIMIT, || Ok((stage.listeners()?.len() == 2).then_some(())))?;
    let (one, other) = (one.pid().to_string(), other.pid().to_string());
    let asks = ["attach", "--port", "8080"];
    refused(&stage, &asks, 4, &["2 unrelated servers", &one, &other, "server.py", "--pid"])?;

    let stranger = std::process::id().to_string();
    let asks = ["attach", "--port", "8080", "--pid", &stranger];
    refused(&stage, &asks, 4, &[&stranger, "does not hold", &one])?;

    stage.agent.run(&["attach", "--port", "8080", "--pid", &other])?.success()?;
    let answers = stage.answers(&server, 50).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [2]);
    Ok(())
}

#[test]
fn anybody_but_root() -> Result<()> {
    let stage = Stage::new()?;
    let server = Node::new(PORT)?;
    let _first = stage.start(&server, 1)?;
    let as_nobody = |arguments: &[&str]| {
        let mut command = stage.agent.command(arguments);
        command.uid(65534).gid(65534);
        stage.agent.start(&mut command)?.finish()
    };
    let before = world(&stage)?;
    // A directory that others may look into, so that not even its mode is what stops them.
    fs::set_permissions(stage.agent.runtime(), fs::Permissions::from_mode(0o755))?;
    check(&as_nobody(&["attach", "--port", "8080"])?, 4, &["CAP_NET_ADMIN", "root"]);
    check(&as_nobody(&["daemon"])?, 4, &["root", "CAP_BPF"]);
    assert_eq!(world(&stage)?, before);

    stage.agent.attach(PORT)?.success()?;
    let before = world(&stage)?;
    check(&as_nobody(&["status"])?, 4, &["root"]);
    check(&as_nobody(&["detach", "--port", "8080"])?, 4, &["root"]);
    assert_eq!(world(&stage)?, before);
    Ok(())
}

#[test]
fn pins_that_are_not_on_a_bpf_file_system() -> Result<()> {
    let stage = Stage::new()?;
    let server = Node::new(PORT)?;
    let _first = stage.start(&server, 1)?;
    let elsewhere = tempfile::tempdir()?;
    let mut command = Command::new(stage.agent.binary());
    command.arg("--runtime-dir").arg(stage.agent.runtime());
    command.arg("--cgroup").arg(stage.agent.cgroup());
    command.arg("--pin-dir").arg(elsewhere.path()).args(["attach", "--port", "8080"]);
    let output = stage.agent.start(&mut command)?.finish()?;
    check(&output, 4, &["BPF file system", "mount"]);
    assert!(stage.agent.daemon().is_none());
    assert_eq!(fs::read_dir(elsewhere.path())?.count(), 0);
    Ok(())
}

#[test]
fn a_service_that_is_unknown() -> Result<()> {
    let stage = Stage::new()?;
    for noun in ["status", "flows", "history"] {
        refused(&stage, &[noun, "--port", "8080"], 3, &["no agent is running"])?;
    }
    let server = Node::new(PORT)?;
    let _first = stage.start(&server, 1)?;
    stage.agent.attach(PORT)?.success()?;
    refused(&stage, &["status", "web"], 3, &["`web`", "node-8080"])?;
    refused(&stage, &["detach", "--port", "99"], 3, &["99", "node-8080"])?;
    refused(&stage, &["undo", "web"], 3, &["`web`"])?;
    refused(&stage, &["upgrade", "web", "--", "node"], 3, &["`web`"])?;
    refused(&stage, &["undo", "--port", "8080"], 4, &["no previous generation"])?;
    Ok(())
}

#[test]
fn a_command_that_cannot_be_started() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let text = stage.agent.runtime().join("text");
    fs::write(&text, "hello")?;
    let text = text.display().to_string();
    let upgrade = |program: &'static str| ["upgrade", "--port", "8080", "--", program];
    refused(&stage, &upgrade("./absent"), 4, &["./absent"])?;
    refused(&stage, &upgrade("absent-program"), 4, &["absent-program", "PATH"])?;
    refused(&stage, &["upgrade", "--port", "8080", "--", &text], 4, &[&text, "chmod +x"])?;
    let options = ["upgrade", "--port", "8080", "--user", "absent-user", "--", "node"];
    refused(&stage, &options, 4, &["absent-user"])?;

    // Executable, and yet nothing that the kernel could run.
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755))?;
    tried_in_vain(&stage, &[], std::slice::from_ref(&text), 5, &[&text])?;
    Ok(())
}

#[test]
fn a_command_that_exits_at_once() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let broken = Script::with(PORT, &["--exit", "3"])?;
    let said = ["exited", "the configuration is broken"];
    tried_in_vain(&stage, &[], &broken.command(2)?, 5, &said)
}

#[test]
fn a_command_that_never_listens() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let said = ["generation 2", "did not listen", "within 1s"];
    tried_in_vain(&stage, &["--timeout", "1s"], &words(&["sleep", "1000"]), 5, &said)
}

#[test]
fn a_working_directory_that_does_not_exist() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let said = ["/no/such/directory", "does not exist", "--cwd"];
    tried_in_vain(&stage, &["--cwd", "/no/such/directory"], &server.command(2)?, 4, &said)
}

#[test]
fn a_command_that_listens_on_another_port() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let other = Script::new(9090)?;
    let argv = other.command(2)?;
    tried_in_vain(&stage, &["--timeout", "2s"], &argv, 5, &["9090", "8080"])
}

#[test]
fn a_command_that_listens_only_on_another_address() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let other = Script::with(PORT, &["--address", ADDRESS])?;
    let argv = other.command(2)?;
    tried_in_vain(&stage, &["--timeout", "2s"], &argv, 5, &[ADDRESS, "0.0.0.0"])
}

/// A process that is ended with the test.
struct Idle(Child);

impl Idle {
    fn start(namespace: &Namespace) -> Result<Self> {
        Ok(Self(namespace.spawn(Command::new("sleep").arg("1000"))?))
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_process_that_is_no_new_generation() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, first) = Stage::attached(&server)?;
    let elsewhere = Namespace::new()?;
    let idle = Idle::start(&stage.namespace)?;
    let foreign = servers::start(&server, &elsewhere, 2)?;
    let pid = |pid: i32| pid.to_string();
    let (idle, foreign, first) =
        (pid(i32::try_from(idle.0.id())?), pid(foreign.pid()), pid(first.pid()));

    let upgrade = |pid| ["upgrade", "--port", "8080", "--pid", pid];
    // Larger than any process number can be.
    refused(&stage, &upgrade("4194305"), 4, &["4194305"])?;
    refused(&stage, &upgrade(&foreign), 4, &[&foreign, "another network namespace"])?;
    refused(&stage, &upgrade(&first), 4, &["generation 1"])?;
    refused(&stage, &["upgrade", "--port", "8080", "--listen", "9"], 4, &["port 9"])?;
    refused(&stage, &["upgrade", "--port", "8080", "--listen", "8080"], 4, &["generation 1"])?;
    refused(&stage, &upgrade(&idle), 4, &[&idle, "no server"])?;
    Ok(())
}

#[test]
fn an_upgrade_while_another_one_is_made_ready() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let slow = tests::agent::upgrade(PORT, &[], &words(&["sleep", "1000"]));
    let slow = stage.agent.start(&mut stage.agent.command(&slow))?;
    stage.until("a candidate", PORT, |service| {
        service.generations.iter().any(|it| it.state == GenerationState::Starting)
    })?;

    let argv = server.command(3)?;
    let second = tests::agent::upgrade(PORT, &[], &argv);
    let second: Vec<&str> = second.iter().map(String::as_str).collect();
    refused_during_a_rollout(&stage, &second, &["generation 2"])?;
    refused_during_a_rollout(&stage, &["detach", "--port", "8080"], &["generation 2"])?;
    stage.agent.undo(PORT)?;
    let ended = slow.finish()?;
    check(&ended, 5, &["taken back"]);
    stage.until_steady(PORT)?;
    Ok(())
}

fn refused_during_a_rollout(stage: &Stage, arguments: &[&str], words: &[&str]) -> Result<()> {
    let generations = |stage: &Stage| {
        let service = stage.agent.service(PORT)?;
        let known = service.generations.iter().map(|it| (it.number, it.state, it.pids.clone()));
        anyhow::Ok(known.collect::<Vec<_>>())
    };
    let before = generations(stage)?;
    check(&stage.agent.run(arguments)?, 7, words);
    assert_eq!(generations(stage)?, before);
    Ok(())
}

/// A service whose agent was killed, and its state file.
async fn abandoned(server: &dyn Server) -> Result<(Stage, Started, PathBuf)> {
    let (stage, first) = Stage::attached(server)?;
    stage.agent.daemon().context("the agent runs")?.kill()?;
    let file = stage.agent.runtime().join("state.json");
    Ok((stage, first, file))
}

#[tokio::test]
async fn a_state_file_that_is_truncated_or_foreign() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first, file) = abandoned(&server).await?;
    let good = fs::read(&file)?;
    let name = file.display().to_string();
    // Blanks are behind it.
    let truncated = good[..good.trim_ascii_end().len() / 2].to_vec();
    for bad in [truncated, br#"{"hello":"world"}"#.to_vec(), Vec::new()] {
        fs::write(&file, &bad)?;
        let before = world(&stage)?;
        for arguments in [&["daemon"][..], &["attach", "--port", "8080"]] {
            check(&stage.agent.run(arguments)?, 4, &[&name]);
        }
        assert_eq!(world(&stage)?, before);
        assert_eq!(fs::read(&file)?, bad, "the file is left as it is");
        let answers = stage.answers(&server, 20).await?;
        assert_eq!(answers.into_keys().collect::<Vec<_>>(), [1], "steering goes on");
    }
    fs::write(&file, &good)?;
    stage.agent.attach(PORT)?.success()?;
    let service = stage.until_steady(PORT)?;
    assert!(service.steered >= 60, "{service:#?}");
    Ok(())
}

#[test]
fn pins_of_another_schema_version() -> Result<()> {
    let stage = Stage::new()?;
    let server = Node::new(PORT)?;
    let _first = stage.start(&server, 1)?;
    fs::create_dir(stage.agent.pins())?;
    fs::create_dir(stage.agent.pins().join("v99"))?;
    let pins = stage.agent.pins().display().to_string();
    let output = refused(&stage, &["attach", "--port", "8080"], 4, &[&pins, "version 99"])?;
    assert!(output.stderr.contains("fix:"), "{output:?}");
    Ok(())
}

#[test]
fn garbage_on_the_control_socket() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let before = world(&stage)?;
    let socket = stage.agent.runtime().join("agent.sock");
    let long = vec![b'a'; 1 << 20];
    let garbage: [&[u8]; 6] = [
        b"\0\xff\xfe\x80garbage\r\n\r\n",
        b"GET /v1/services HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /v1/services HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"ports\":",
        b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"",
        &long,
    ];
    let mut kept = Vec::new();
    for bytes in garbage {
        let mut stream = UnixStream::connect(&socket)?;
        // The agent may hang up in the middle of it.
        stream.write_all(bytes).ok();
        kept.push(stream);
        stage.agent.status()?;
    }
    drop(kept);
    assert_eq!(world(&stage)?, before);
    Ok(())
}

#[test]
fn an_agent_in_another_namespace_is_not_for_us() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let before = world(&stage)?;
    let elsewhere = Namespace::new()?;
    let _listener = elsewhere.enter(|| Ok(TcpListener::bind(("0.0.0.0", PORT))?))?;
    let mut command = stage.agent.command(&["detach", "--port", "8080"]);
    let output = elsewhere.output(&mut command)?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("another network namespace"), "{told}");
    assert_eq!(world(&stage)?, before);
    Ok(())
}

#[test]
fn what_is_typed_wrong() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    refused(&stage, &["attach"], 2, &["--port"])?;
    refused(&stage, &["attach", "--port", "0"], 2, &["0"])?;
    refused(&stage, &["upgrade", "--", "node"], 2, &["NAME"])?;
    let signal = ["upgrade", "--port", "8080", "--drain-signal", "STOPP", "--", "node"];
    refused(&stage, &signal, 2, &["STOPP"])?;
    refused(&stage, &["explain", "8080"], 2, &["8080"])?;
    Ok(())
}

/// The kernel says EPERM, which sounds like a lack of rights.
#[test]
fn pins_where_none_can_be_are_refused_before_anything_is_made() -> Result<()> {
    let server = Node::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let runtime = tempfile::tempdir()?;
    let port = PORT.to_string();
    for words in [&["attach", "--port", &port][..], &["daemon"], &["doctor"]] {
        let mut command = Command::new(stage.agent.binary());
        command.arg("--runtime-dir").arg(runtime.path().join("run"));
        command.arg("--cgroup").arg(stage.agent.cgroup());
        command.args(["--pin-dir", "/sys/fs/bpf/agent.test/pins"]).args(words);
        let output = stage.namespace.output(&mut command)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.code() == Some(4), "{words:?}: {said}");
        ensure!(said.contains("no name with a dot, as `agent.test` is"), "{words:?}: {said}");
        ensure!(
            !runtime.path().join("run").exists() && !stage.agent.cgroup().exists(),
            "{words:?}"
        );
    }
    Ok(())
}

/// Units and scripts take a variable back so.
#[test]
fn an_empty_variable_says_nothing() -> Result<()> {
    let stage = Stage::new()?;
    for variable in ["AGENT_CGROUP", "AGENT_PIN_DIR", "AGENT_CONFIG", "AGENT_OUTPUT"] {
        let mut command = Command::new(stage.agent.binary());
        command.arg("--runtime-dir").arg(stage.agent.runtime()).arg("status").env(variable, "");
        let output = stage.namespace.output(&mut command)?;
        ensure!(output.status.code() == Some(3), "{variable}: {output:?}");
    }
    Ok(())
}
