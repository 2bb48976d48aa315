//! What each capability is for that the agent keeps, and each that its launcher has: without it something fails, in words.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Child, Command};

use agent::host::capabilities;
use agent_api::{EventView, Events, ServiceState};
use anyhow::{Result, ensure};
use tests::agent::Output;
use tests::servers::{Commanded, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::wait;

/// Below 1024.
const PORT: u16 = 80;
const NOBODY: u32 = 65534;
/// What is told where something did not work.
const BAD: [&str; 3] = ["cannot", "killed", "may have removed"];

/// Who starts launchers when the agent connects, as systemd does.
struct Activator {
    child: Child,
    socket: PathBuf,
}

impl Activator {
    fn start(stage: &Stage, without: Option<&str>) -> Result<Self> {
        let socket = stage.agent.runtime().join("launcher.sock");
        let mut command = Command::new("systemd-socket-activate");
        command.args(["--seqpacket", "--accept", "--inetd", "--listen"]).arg(&socket);
        command.arg(stage.agent.binary()).arg("launcher");
        let child = stage.namespace.spawn(&mut bounded(&command, without))?;
        let activator = Self { child, socket };
        wait::until("the socket", LIMIT, || Ok(activator.socket.exists().then_some(())))?;
        Ok(activator)
    }
}

impl Drop for Activator {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

/// The command with one capability less.
fn bounded(command: &Command, without: Option<&str>) -> Command {
    let mut bounded = Command::new("setpriv");
    if let Some(capability) = without {
        bounded.arg(format!("--bounding-set=-{capability}"));
        bounded.arg(format!("--inh-caps=-{capability}"));
    }
    bounded.arg(command.get_program()).args(command.get_args());
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded
}

/// Where a server that is nobody's keeps its names, and lets no other user in.
fn private(server: &Commanded) -> Result<PathBuf> {
    let private = server.directory().join("private");
    fs::create_dir(&private)?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700))?;
    chown(&private, Some(NOBODY), Some(NOBODY))?;
    Ok(private)
}

/// A service that becomes another user's and root's again, with names in a directory of that user.
fn lives_through(agent_without: Option<&str>, launcher_without: Option<&str>) -> Result<String> {
    let stage = Stage::new()?;
    let server = Commanded::new(PORT, &["/usr/bin/python3", "{}/server.py", "80", "1"])?;
    let _first = stage.start(&server, 1)?;
    let private = private(&server)?;
    let path = |name: &str| private.join(name).display().to_string();
    let (number, control) = (path("pid"), path("control"));
    let folder = server.directory().display().to_string();
    let script = format!("{folder}/server.py");
    let next = |generation: &'static str, user: &'static str| {
        let mut words = vec!["upgrade", "--port", "80", "--user", user, "--cwd", &folder];
        words.extend(["--settle", "0s", "--stop-timeout", "1s", "--", "/usr/bin/python3", &script]);
        words.extend(["80", generation]);
        words
    };
    let named = |generation: &'static str, user: &'static str| {
        [next(generation, user), vec!["--pid-file", &number, "--control", &control]].concat()
    };
    let activator = Activator::start(&stage, launcher_without)?;
    let mut daemon = stage.agent.command(&["daemon", "--launcher"]);
    daemon.arg(&activator.socket);
    if let Err(error) = stage.agent.start_daemon_by(&mut bounded(&daemon, agent_without)) {
        return Ok(format!("start: {}", said(&format!("{error:#}"))));
    }
    let steps = [
        ("attach", vec!["attach", "--port", "80"]),
        ("again", next("2", "0")),
        ("to nobody", named("3", "65534")),
        ("to root", named("4", "0")),
        ("to nobody again", named("5", "65534")),
        ("to root again", next("6", "0")),
        ("detach", vec!["detach", "80"]),
    ];
    for (name, words) in steps {
        let Output { code, stderr, .. } = stage.agent.run(&words)?;
        if code != Some(0) {
            return Ok(format!("{name}: {}", said(&stderr)));
        }
        if name == "detach" {
            break;
        }
        let mut trouble = None;
        let steady = wait::until("nothing to be under way", LIMIT, || {
            let service = stage.agent.service(PORT)?;
            trouble = service.troubles.first().cloned();
            let is_steady = service.state == ServiceState::Steady && service.generations.len() == 1;
            Ok((trouble.is_some() || is_steady).then_some(()))
        });
        if let Some(trouble) = trouble {
            return Ok(format!("after {name}: {trouble}"));
        }
        steady?;
        let events = stage.agent.run(&["events", "-o", "json"])?.success()?.stdout;
        let events: Events = serde_json::from_str(&events)?;
        let fails = |it: &&EventView| BAD.iter().any(|word| it.message.contains(word));
        let told = events.events.iter().find(fails);
        if let Some(told) = told {
            return Ok(format!("told {name}: {}", told.message));
        }
    }
    stage.namespace.clear()?;
    Ok("all".to_owned())
}

/// The deepest cause of the first error.
fn said(text: &str) -> &str {
    let mut lines = text.lines().skip_while(|line| !line.contains("error: "));
    let first = lines.next().unwrap_or(text);
    let causes = lines.take_while(|line| line.starts_with("  "));
    causes.filter(|line| line.starts_with("  because ")).last().unwrap_or(first).trim()
}

/// The agent, without each that it keeps. One that this machine does not give is shown by nothing, and CAP_SYS_ADMIN stands for
/// CAP_BPF and CAP_PERFMON.
#[test]
fn the_agent_keeps_no_capability_for_nothing() -> Result<()> {
    let table = [
        ("net_admin", "told attach: if a listener closes early"),
        ("sys_admin", "start: error: the agent lacks CAP_SYS_ADMIN"),
        ("sys_ptrace", "start: error: the agent lacks CAP_SYS_PTRACE"),
        ("kill", "told to root: generation 3 cannot be told to end"),
        ("dac_override", "start: error: the agent lacks CAP_DAC_OVERRIDE"),
        ("fowner", "told to nobody again: generation 4 may have removed"),
        (
            "chown",
            "after to nobody: python3-80: generation 3 listens elsewhere, and anybody may bind",
        ),
        ("net_bind_service", "told attach: if a listener closes early"),
    ];
    let mut wrong = Vec::new();
    for (capability, expected) in table {
        let fails = lives_through(Some(capability), None)?;
        if !fails.contains(expected) {
            wrong.push(format!("{capability}: {fails}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What `doctor` says of a machine is what `attach` meets there: without each in the table, and without parts of one that is.
#[test]
fn doctor_refuses_what_attach_cannot_do_without_and_nothing_else() -> Result<()> {
    let stage = Stage::new()?;
    let server = Commanded::new(PORT, &["/usr/bin/python3", "{}/server.py", "80", "1"])?;
    let _first = stage.start(&server, 1)?;
    let in_table = capabilities::all().map(|it| (it.name, it.is_needed));
    let parts = [("CAP_BPF", false), ("CAP_PERFMON", false)];
    for (name, is_needed) in in_table.chain(parts) {
        let short = name.trim_start_matches("CAP_").to_lowercase();
        let run = |words: &[&str]| {
            let mut command = bounded(&stage.agent.command(words), Some(&short));
            stage.agent.start(&mut command)?.finish()
        };
        let (doctor, attach) = (run(&["doctor"])?, run(&["attach", "--port", "80"])?);
        let said = format!("{name}: {doctor:?}, {attach:?}");
        let expected = Some(if is_needed { 4 } else { 0 });
        ensure!(doctor.code == expected && attach.code == expected, "{said}");
        ensure!(!is_needed || attach.stderr.contains(&format!("lacks {name}: ")), "{said}");
        let is_part = parts.contains(&(name, is_needed));
        ensure!(is_part || doctor.stdout.contains(&format!("without {name} ")), "{said}");
        if !is_needed {
            stage.agent.run(&["detach", "80"])?.success()?;
            let is_gone = || Ok(stage.agent.daemon().is_none().then_some(()));
            wait::until("the agent to end", LIMIT, is_gone)?;
        }
    }
    Ok(())
}

/// A launcher passes on what it has: what a server has and it has not is named before anything is started.
#[test]
fn a_launcher_that_lacks_something_starts_no_server_that_has_it() -> Result<()> {
    for capability in ["setuid", "setgid", "setpcap", "sys_admin", "chown", "sys_nice"] {
        let fails = lives_through(None, Some(capability))?;
        let name = format!("the running server has CAP_{}", capability.to_uppercase());
        ensure!(fails.starts_with("again: ") && fails.contains(&name), "{capability}: {fails}");
    }
    Ok(())
}

#[test]
fn with_all_of_them_everything_works() -> Result<()> {
    assert_eq!(lives_through(None, None)?, "all");
    Ok(())
}
