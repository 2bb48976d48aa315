//! What others have prepared for the agent, and what they send it.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::namespace::Namespace;
use tests::servers::Script;
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
    let mut command = std::process::Command::new(agent.binary());
    command.arg("--runtime-dir").arg(&runtime).args(["attach", "--port", "8080"]);
    let refused = namespace.output(&mut command)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("belongs to uid {USER}")), "{said}");
    assert_eq!(fs::read_to_string(&precious)?, "as it was");
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
    let end = fs::read_to_string(log.with_extension("earlier"))?;
    ensure!(end.ends_with("a line of the log\n") && end.len() <= 256 << 10);
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
