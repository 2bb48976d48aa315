//! `agent doctor`: it says what is missing and how to get it, tries everything else, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::agent::Agent;
use tests::namespace::Namespace;
use tests::servers::{self, Python, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;
const NOBODY: u32 = 65_534;

#[test]
fn all_that_is_needed_is_found_where_the_agent_works() -> Result<()> {
    let namespace = Namespace::new()?;
    let agent = Agent::new(&namespace)?;
    let diagnosis = agent.run(&["doctor", "-o", "json"])?.success()?.json()?;
    for check in checks(&diagnosis)? {
        assert_eq!(check["verdict"], "ok", "{check:#}");
    }
    let tried = ["program steer", "taking a listener over", "kernel reports", "socket diagnosis"];
    for name in tried {
        named(&diagnosis, name)?;
    }
    assert!(!agent.pins().exists() && !agent.cgroup().exists());
    let beside = agent.cgroup().parent().context("the group has a parent")?;
    let left = groups(beside, "agent-doctor-")?;
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// As in a container without a network.
#[test]
fn loopback_that_is_down_is_no_matter() -> Result<()> {
    let agent = Agent::new(&Namespace::new()?)?;
    let mut alone = Command::new("unshare");
    alone.arg("--net").arg(agent.binary()).args(["doctor", "-o", "json"]);
    let diagnosis = agent.start(&mut alone)?.finish()?.success()?.json()?;
    assert_eq!(named(&diagnosis, "taking a listener over")?["verdict"], "ok");
    let told = named(&diagnosis, "loopback")?["detail"].as_str().context("a text")?;
    assert!(told.starts_with("down: ") && told.contains("ip link set lo up"), "{told}");
    Ok(())
}

/// Kernels of distributions call themselves what they like: this one says that it is older than all that is needed.
#[test]
fn the_name_of_a_release_decides_nothing() -> Result<()> {
    let server = Python::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let renamed = |arguments: &[&str]| {
        let given = stage.agent.command(arguments);
        let mut command = Command::new("setarch");
        command.arg("--uname-2.6").arg(given.get_program()).args(given.get_args());
        command.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    };
    stage.agent.start(&mut renamed(&["doctor"]))?.finish()?.success()?;
    stage.agent.start_daemon_by(&mut renamed(&["daemon"]))?;
    stage.agent.attach(PORT)?.success()?;
    stage.switch(&server, 2, &[])?;
    stage.agent.kill_daemon()?;
    stage.agent.start_daemon_by(&mut renamed(&["daemon"]))?;
    stage.until_steady(PORT)?;
    stage.detach(PORT)
}

#[test]
fn a_working_agent_is_seen_and_not_disturbed() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = Python::new(PORT)?;
    let _started = servers::start(&server, &namespace, 1)?;
    let agent = Agent::new(&namespace)?;
    let before = agent.run(&["doctor", "-o", "json"])?.success()?.json()?;
    assert_eq!(detail(&before, "socket lookup")?, "no program steers in this network namespace");

    agent.attach(PORT)?.success()?;
    let status = agent.status()?;
    let diagnosis = agent.run(&["doctor", "-o", "json"])?.success()?.json()?;
    assert!(detail(&diagnosis, "socket lookup")?.ends_with(": steer"), "{diagnosis:#}");
    let attached = |status: &Value| status["services"][0]["generations"][0]["listeners"].clone();
    assert_eq!(attached(&agent.status()?), attached(&status));
    agent.detach(PORT)?.success()?;
    Ok(())
}

/// Whoever calls it with the runtime directory of another agent is not to start a second one on the pins of the first.
#[test]
fn pins_that_an_agent_has_in_use_are_not_repaired_from_elsewhere() -> Result<()> {
    let server = Python::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let agent = &stage.agent;
    let elsewhere = tempfile::tempdir()?;
    for repair in [&[][..], &["--repair"]] {
        let mut doctor = Command::new(agent.binary());
        doctor.arg("--runtime-dir").arg(elsewhere.path()).arg("--pin-dir").arg(agent.pins());
        doctor
            .arg("--cgroup")
            .arg(agent.cgroup())
            .args(["--config", "/dev/null", "doctor"])
            .args(repair);
        let refused = stage.namespace.output(&mut doctor)?;
        let said = String::from_utf8([refused.stdout, refused.stderr].concat())?;
        assert_ne!(refused.status.code(), Some(0), "{said}");
        assert!(said.contains("are in use by process"), "{said}");
        assert!(said.contains("--runtime-dir"), "{said}");
    }
    assert_eq!(fs::read_dir(elsewhere.path())?.count(), 0, "nothing was made");
    assert_eq!(stage.generation(server.address())?, 1);
    stage.detach(PORT)
}

#[test]
fn what_is_missing_comes_with_its_fix() -> Result<()> {
    let agent = Agent::new(&Namespace::new()?)?;
    let pins = tempfile::tempdir()?;
    let pins = pins.path().join("pins");
    let pins = pins.to_str().context("a path in UTF-8")?;
    // The last one counts.
    let output = agent.run(&["doctor", "--pin-dir", pins])?;
    assert_eq!(output.code, Some(4), "{output:?}");
    assert!(output.stdout.contains("fix BPF file system: `mount -t bpf bpf "), "{output:?}");
    assert!(!Path::new(pins).exists());
    Ok(())
}

#[test]
fn a_user_without_rights_is_told_which_are_missing() -> Result<()> {
    let namespace = Namespace::new()?;
    // Where everybody may go, which a home directory is not.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let prepared = Agent::new(&namespace)?.command(&["doctor", "-o", "json"]);
    let binary = directory.path().join("agent");
    fs::copy(prepared.get_program(), &binary)?;
    let agent = Agent::with_binary(&namespace, &binary)?;

    let output =
        namespace.output(agent.command(&["doctor", "-o", "json"]).uid(NOBODY).gid(NOBODY))?;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let diagnosis: Value = serde_json::from_slice(&output.stdout)?;
    let missing = detail(&diagnosis, "capabilities")?;
    for capability in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"] {
        assert!(missing.contains(capability), "{missing}");
    }
    assert_eq!(named(&diagnosis, "user")?["fix"], "run it with sudo");
    // Nothing else is even tried, and so has no fix.
    assert!(named(&diagnosis, "program steer").is_err(), "{diagnosis:#}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{said}");
    Ok(())
}

#[test]
fn root_of_a_user_namespace_is_told_so() -> Result<()> {
    let namespace = Namespace::new()?;
    let command = Agent::new(&namespace)?.command(&["doctor", "-o", "json"]);
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user"]).arg(command.get_program()).args(command.get_args());
    let output = namespace.output(&mut inside)?;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let diagnosis: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(detail(&diagnosis, "user")?, "root of a user namespace only");
    assert!(named(&diagnosis, "pinning").is_err(), "{diagnosis:#}");
    Ok(())
}

fn checks(diagnosis: &Value) -> Result<&Vec<Value>> {
    diagnosis["checks"].as_array().context("the answer has checks")
}

fn named<'a>(diagnosis: &'a Value, name: &str) -> Result<&'a Value> {
    let found = checks(diagnosis)?.iter().find(|check| check["name"] == name);
    found.with_context(|| format!("there is no check `{name}` in {diagnosis:#}"))
}

fn detail<'a>(diagnosis: &'a Value, name: &str) -> Result<&'a str> {
    named(diagnosis, name)?["detail"].as_str().context("a check has a detail")
}

fn groups(directory: &Path, prefix: &str) -> Result<Vec<String>> {
    let names = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    // Another test's doctor may be at it just now: its group is gone by the time of a second look.
    Ok(names
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .filter(|name| {
            tests::wait::sleep(std::time::Duration::from_secs(2));
            directory.join(name).exists()
        })
        .collect())
}

/// As Linux 6.1.41 does: no such kernel can be had from Debian any more, so the place where the lock is looked for is another.
#[test]
fn a_kernel_whose_walk_would_hang_is_refused_before_it_does() -> Result<()> {
    let stage = Stage::new()?;
    let server = Python::new(PORT)?;
    let _started = stage.start(&server, 1)?;
    let asked = |words: &[&str]| {
        let mut command = stage.agent.command(words);
        stage.agent.start(command.env("AGENT_WITHOUT", "owned_walk"))?.finish()
    };
    let diagnosis = asked(&["doctor"])?;
    assert_eq!(diagnosis.code, Some(4), "{diagnosis:?}");
    for words in ["taking a listener over", "this kernel would hang for ever"] {
        assert!(diagnosis.stdout.contains(words), "{diagnosis:?}");
    }
    let attached = asked(&["attach", "--port", "8080"])?;
    assert_eq!(attached.code, Some(4), "{attached:?}");
    assert!(attached.stderr.contains("this kernel would hang for ever"), "{attached:?}");
    assert!(attached.stderr.lines().count() <= 4, "{attached:?}");
    assert_eq!(stage.generation(server.address())?, 1);
    wait::until("nothing to be left", LIMIT, || {
        let is_left = stage.agent.pins().exists() || stage.agent.cgroup().exists();
        Ok((!is_left).then_some(()))
    })?;
    stage.namespace.clear()
}

/// Neither is said to be missing: nobody got as far as trying.
#[test]
fn what_nobody_could_try_is_no_success() -> Result<()> {
    let agent = Agent::new(&Namespace::new()?)?;
    let groups = agent.cgroup().parent().context("the group has a parent")?.display().to_string();
    for hides in ["mount -t tmpfs none $1", "mount --bind $1 $1 && mount -o remount,bind,ro $1"] {
        let script = format!("{hides} && exec $0 doctor");
        let mut hidden = Command::new("unshare");
        hidden.args(["--mount", "sh", "-c", &script]).arg(agent.binary()).arg(&groups);
        let diagnosis = agent.start(&mut hidden)?.finish()?;
        assert_eq!(diagnosis.code, Some(4), "{hides}: {}", diagnosis.stdout);
    }
    Ok(())
}

#[test]
fn what_an_interrupted_one_has_left_is_removed_by_the_next() -> Result<()> {
    let agent = Agent::new(&Namespace::new()?)?;
    let beside = agent.cgroup().parent().context("the group has a parent")?;
    let left = beside.join("agent-doctor-0123456789abcdef");
    fs::create_dir_all(left.join("level"))?;
    agent.run(&["doctor"])?.success()?;
    assert!(!left.exists());
    Ok(())
}

/// Containers that share the machine's control groups: the same number is another process in each.
#[test]
fn those_in_different_pid_namespaces_do_not_meet() -> Result<()> {
    const MANY: usize = 6;
    let agent = Agent::new(&Namespace::new()?)?;
    let started: Vec<_> = (0..MANY)
        .map(|_| {
            let mut alone = Command::new("unshare");
            alone.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
            agent.start(alone.arg(agent.binary()).arg("doctor"))
        })
        .collect::<Result<_>>()?;
    for one in started {
        let diagnosis = one.finish()?;
        assert_eq!(diagnosis.code, Some(0), "{} {}", diagnosis.stdout, diagnosis.stderr);
        assert!(!diagnosis.stderr.contains("WARN"), "{}", diagnosis.stderr);
    }
    Ok(())
}
