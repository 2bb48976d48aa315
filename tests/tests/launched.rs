//! What becomes of a server that the agent launches.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_load::Plan;
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::servers::{Nginx, Node, Script, Server};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

#[test]
fn a_server_that_puts_itself_into_the_background_is_followed() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &[])?;
    let service = stage.until_steady(PORT)?;
    let second = &service.generations[0];
    assert_eq!((second.number.0, second.pids.len()), (2, 3), "a master and two workers");
    let written = server.pid_file(2).context("nginx writes its number")?;
    let master: i32 = fs::read_to_string(written)?.trim().parse()?;
    assert_eq!(second.pids[0], master);
    for pid in &second.pids {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let ours = stage.agent.cgroup().file_name().context("a name")?.to_string_lossy();
        assert!(cgroup.contains(&*ours), "process {pid} is in {cgroup}");
    }
    assert!(second.launched && second.log.as_ref().is_some_and(|log| log.exists()));
    Ok(())
}

/// A server that runs as its own user, with its own limits, and writes down what it was given.
#[derive(Debug)]
struct Particular {
    script: Script,
    notes: PathBuf,
}

impl Particular {
    fn new() -> Result<Self> {
        let script = Script::new(PORT)?;
        let notes = script.directory().join("notes");
        fs::create_dir(&notes)?;
        fs::set_permissions(&notes, fs::Permissions::from_mode(0o777))?;
        Ok(Self { script, notes })
    }

    fn note(&self, generation: u32) -> PathBuf {
        self.notes.join(generation.to_string())
    }

    /// As the first one is started by hand: all of these commands become the server.
    fn by_hand(&self, generation: u32) -> Result<Vec<String>> {
        let become_user = [
            "prlimit",
            "--nofile=777:888",
            "setpriv",
            "--reuid=65534",
            "--regid=65533",
            "--groups=65531,65532",
            "env",
            "MARK=an odd \"value\"",
        ];
        let own = become_user.iter().map(|word| (*word).to_owned());
        Ok(own.chain(self.server(generation)?).collect())
    }

    fn server(&self, generation: u32) -> Result<Vec<String>> {
        let mut command = self.script.command(generation)?;
        // Whatever stands before it in the PATH may be for its owner alone.
        "/usr/bin/python3".clone_into(&mut command[0]);
        command.extend(["--describe".to_owned(), self.note(generation).display().to_string()]);
        Ok(command)
    }
}

impl Server for Particular {
    fn name(&self) -> &'static str {
        "particular"
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn directory(&self) -> &Path {
        self.script.directory()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        if generation == 1 { self.by_hand(generation) } else { self.server(generation) }
    }

    fn plan(&self) -> Plan {
        self.script.plan()
    }
}

#[test]
fn a_launched_server_is_given_what_the_old_one_was_given() -> Result<()> {
    let server = Particular::new()?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &[])?;
    let given = |generation: u32| -> Result<Value> {
        let text = wait::until("what the server was given", LIMIT, || {
            Ok(fs::read_to_string(server.note(generation)).ok().filter(|text| !text.is_empty()))
        })?;
        Ok(serde_json::from_str(&text)?)
    };
    let (first, second) = (given(1)?, given(2)?);
    assert_eq!(first["user"], serde_json::json!([65534, 65534, 65534]));
    assert_eq!(first["open files"], serde_json::json!([777, 888]));
    assert_eq!(first["environment"]["MARK"], "an odd \"value\"");
    assert_eq!(second, first);

    let options = ["--cwd", "/", "--env", "MARK=other", "--limit", "nofile=500"];
    stage.switch(&server, 3, &options)?;
    let third = given(3)?;
    assert_eq!(third["directory"], "/");
    assert_eq!(third["environment"]["MARK"], "other");
    assert_eq!(third["open files"], serde_json::json!([500, 500]));
    assert_eq!(third["user"], first["user"]);
    Ok(())
}

/// The kernel tells of the end up to 10 ms later (`CGROUP_FILE_NOTIFY_MIN_INTV`), and nobody is to hear that.
#[expect(clippy::disallowed_methods, reason = "what is waited for is that nothing is heard")]
fn let_reports_pass() {
    std::thread::sleep(Duration::from_millis(100));
}

/// Nobody tells of an end that was before anybody waited for it.
#[test]
fn one_that_exits_before_it_is_watched_is_not_waited_for() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let faults = stage.agent.runtime().join("faults");
    fs::create_dir(&faults)?;
    fs::write(faults.join("armed"), "stop-after launch 0\n")?;
    let words = tests::agent::upgrade(PORT, &["--timeout", "10s"], &["false".to_owned()]);
    let upgrade = stage.agent.start(&mut stage.agent.command(&words))?;
    let daemon = stage.agent.daemon().context("the agent lives")?.pid();
    wait::until("the agent to stop", LIMIT, || {
        let status = fs::read_to_string(format!("/proc/{daemon}/status"))?;
        Ok(status.contains("State:\tT").then_some(()))
    })?;
    wait::until("the candidate to end", LIMIT, || {
        let events = fs::read_to_string(stage.agent.cgroup().join("cgroup.events"))?;
        Ok(events.contains("populated 0").then_some(()))
    })?;
    let_reports_pass();
    kill(Pid::from_raw(daemon), Signal::SIGCONT)?;
    let upgrade = upgrade.finish()?;
    assert_eq!(upgrade.code, Some(5), "{upgrade:?}");
    assert!(upgrade.stderr.contains("exited before it was ready"), "{upgrade:?}");
    fs::remove_dir_all(faults)?;
    Ok(())
}

/// Two threads find out that it has ended: how is told first, whoever is quicker.
#[test]
fn of_a_program_that_ends_at_once_it_is_always_told_how_it_ended() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    for _ in 0..60 {
        let upgrade = tests::agent::upgrade(PORT, &[], &["/bin/false".to_owned()]);
        let upgrade = stage.agent.run(&upgrade)?;
        assert_eq!(upgrade.code, Some(5), "{upgrade:?}");
        assert!(upgrade.stderr.contains("its first process exited with code 1"), "{upgrade:?}");
    }
    Ok(())
}
