//! What others have prepared for the agent, and what they send it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::namespace::Namespace;
use tests::servers::{Commanded, Script};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;
const USER: u32 = 54_321;

/// A command that starts the agent in the background writes there before the agent looks.
#[test]
fn nothing_is_written_through_a_link_in_a_directory_of_somebody_else() -> Result<()> {
    let namespace = Namespace::new()?;
    let folder = tempfile::tempdir()?;
    let (runtime, precious) = (folder.path().join("run"), folder.path().join("precious"));
    fs::create_dir(&runtime)?;
    fs::write(&precious, "as it was")?;
    symlink(&precious, runtime.join("agent.log"))?;
    chown(&runtime, Some(USER), None)?;
    let agent = tests::agent::Agent::new(&namespace)?;
    let mut command = Command::new(agent.binary());
    command.arg("--runtime-dir").arg(&runtime).args(["attach", "--port", "8080"]);
    let refused = namespace.output(&mut command)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("belongs to uid {USER}")), "{said}");
    assert_eq!(fs::read_to_string(&precious)?, "as it was");
    Ok(())
}

/// One that somebody who is not root has made, and in which he listens.
fn directory_of_somebody_else(stage: &Stage) -> Result<(tempfile::TempDir, Child)> {
    const LISTENS: &str = "import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
time.sleep(600)";
    let folder = tempfile::tempdir()?;
    let runtime = folder.path().join("run");
    fs::create_dir(&runtime)?;
    chown(&runtime, Some(USER), None)?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let user = USER.to_string();
    let mut listener = Command::new("setpriv");
    listener.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    listener.args(["/usr/bin/python3", "-c", LISTENS]).arg(runtime.join("agent.sock"));
    let listener = stage.namespace.spawn(&mut listener)?;
    wait::until("the socket", LIMIT, || {
        Ok(UnixStream::connect(runtime.join("agent.sock")).is_ok().then_some(()))
    })?;
    Ok((folder, listener))
}

fn refused(stage: &Stage, runtime: &Path) -> Result<String> {
    let mut command = Command::new(stage.agent.binary());
    command.arg("--runtime-dir").arg(runtime).arg("status");
    let refused = stage.namespace.output(&mut command)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(4), "{:?}: {said}", refused.status);
    Ok(said)
}

/// What it is asked may be secret, and what it answers is shown and believed; or it says nothing for ever.
#[test]
fn nobody_else_is_taken_for_the_agent() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let (folder, mut listener) = directory_of_somebody_else(&stage)?;
    let theirs = folder.path().join("run");
    let said = refused(&stage, &theirs)?;
    ensure!(said.contains(&format!("runs as uid {USER}")), "{said}");
    // Where the way in the directory leads is theirs to say.
    let socket = theirs.join("agent.sock");
    fs::remove_file(&socket)?;
    symlink(stage.agent.runtime().join("agent.sock"), &socket)?;
    let said = refused(&stage, &theirs)?;
    ensure!(said.contains(&format!("belongs to uid {USER}")), "{said}");
    listener.kill()?;
    listener.wait()?;
    stage.detach(PORT)
}

/// It could name another directory, another server, another user.
#[test]
fn the_configuration_of_somebody_else_does_not_steer_root() -> Result<()> {
    let stage = Stage::new()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    let status = || {
        let mut command = stage.agent.command(&["status"]);
        let output = stage.namespace.output(command.env("AGENT_CONFIG", &file))?;
        Ok::<_, anyhow::Error>((output.status.code(), String::from_utf8(output.stderr)?))
    };
    fs::write(&file, "verbose = 0\n")?;
    let (code, said) = status()?;
    ensure!(code == Some(3), "no agent runs: {said}");
    chown(&file, Some(USER), None)?;
    let (code, said) = status()?;
    ensure!(code == Some(4) && said.contains(&format!("belongs to uid {USER}")), "{said}");
    fs::remove_file(&file)?;
    ensure!(Command::new("mkfifo").arg(&file).status()?.success());
    let (code, said) = status()?;
    ensure!(code == Some(2) && said.contains("it is no regular file"), "{said}");
    Ok(())
}

#[test]
fn the_log_of_an_agent_in_the_background_is_cut() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let log = stage.agent.runtime().join("agent.log");
    ensure!(log.exists(), "it runs in the background");
    let padding = "a line of the log\n".repeat(100_000);
    let file = fs::OpenOptions::new().append(true).open(&log)?;
    std::io::Write::write_all(&mut &file, padding.as_bytes())?;
    wait::until("the log to be cut", LIMIT, || {
        Ok((fs::metadata(&log)?.len() < 1 << 20).then_some(()))
    })?;
    // The end that is kept is written after the room is given back.
    let earlier = log.with_extension("earlier");
    let end = wait::until("its end", LIMIT, || {
        let end = fs::read_to_string(&earlier).unwrap_or_default();
        Ok(end.ends_with("a line of the log\n").then_some(end))
    })?;
    ensure!(end.len() <= 256 << 10);
    stage.detach(PORT)
}

/// More connections than the agent keeps: those that say nothing are closed, and who asks is answered.
#[test]
fn connections_that_say_nothing_keep_nobody_from_asking() -> Result<()> {
    const MANY: usize = 3000;
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    let socket = stage.agent.runtime().join("agent.sock");
    let silent: Vec<UnixStream> =
        (0..MANY).map(|_| Ok(UnixStream::connect(&socket)?)).collect::<Result<_>>()?;
    let begun = Instant::now();
    stage.agent.run(&["status"])?.success()?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    let agent = stage.agent.daemon().context("an agent")?.pid();
    let open = fs::read_dir(format!("/proc/{agent}/fd"))?.count();
    ensure!(open < MANY, "{open} descriptors are open");
    drop(silent);
    stage.detach(PORT)
}

/// All that is remembered is written at each step of each service, and has an end.
#[test]
fn no_service_has_so_much_remembered_that_others_find_no_room() -> Result<()> {
    const TALKATIVE: &str = "import os, sys
said = dict(os.environ)
said.update((f\"V{number}\", \"\\x01\" * 990) for number in range(900))
os.execve(sys.executable, [sys.executable, *sys.argv[1:]], said)";
    let neighbour = Script::new(8081)?;
    let (stage, _beside) = Stage::attached(&neighbour)?;
    let server = ["/usr/bin/python3", "-c", TALKATIVE, "{}/server.py", "8080", "1"];
    let _talkative = stage.start(&Commanded::new(PORT, &server)?, 1)?;
    let refused = stage.refused(&["attach", "--port", "8080"], 4)?;
    ensure!(refused.contains("what has to be remembered of `python3-8080` takes"), "{refused}");
    ensure!(stage.agent.state_length()? < 100_000, "it is remembered nevertheless");
    stage.switch(&neighbour, 2, &["--settle", "0s"])
}
