//! The scripts of `examples`: each does what it says, with good versions and with broken ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::agent::Output;
use tests::servers::{Script, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::systemd::Systemd;
use tests::wait;

const PORT: u16 = 8080;
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd");
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/python/server.py");

/// A folder that has the agent under the name that the scripts know.
fn path_of(stage: &Stage) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    symlink(stage.agent.binary(), folder.path().join("agent"))?;
    Ok(folder)
}

/// Runs a script as an operator would, who has said by variables which agent is meant.
fn run(stage: &Stage, script: &str, words: &[&str], argv: &[String]) -> Result<Output> {
    let folder = path_of(stage)?;
    let path = std::env::var("PATH").context("a path")?;
    let mut command = Command::new(Path::new(EXAMPLES).join(script));
    command.args(words).args(argv);
    command.env("PATH", format!("{}:{path}", folder.path().display()));
    command.env("AGENT_RUNTIME_DIR", stage.agent.runtime());
    command.env("AGENT_PIN_DIR", stage.agent.pins());
    command.env("AGENT_CGROUP", stage.agent.cgroup());
    command.env("AGENT_CONFIG", stage.agent.configuration());
    stage.agent.start(&mut command)?.finish()
}

#[test]
fn a_deploy_ends_with_what_became_of_it() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let deployed = run(&stage, "deploy.sh", &["8080"], &server.command(2)?)?;
    ensure!(deployed.code == Some(0) && deployed.stdout.contains("deployed"), "{deployed:?}");
    assert_eq!(stage.generation(server.address())?, 2);

    let broken = Script::with(PORT, &["--exit", "3"])?;
    let refused = run(&stage, "deploy.sh", &["8080"], &broken.command(3)?)?;
    ensure!(refused.code == Some(5), "{refused:?}");
    ensure!(refused.stderr.contains("the old one serves"), "{refused:?}");
    assert_eq!(stage.generation(server.address())?, 2);

    let nothing = run(&stage, "deploy.sh", &["9090"], &server.command(4)?)?;
    ensure!(nothing.code == Some(3) && nothing.stderr.contains("not deployed"), "{nothing:?}");
    Ok(())
}

#[test]
fn a_check_that_fails_puts_the_old_version_back() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let undone = run(&stage, "blue-green.sh", &["8080", "exit 1"], &server.command(2)?)?;
    ensure!(undone.code == Some(8), "{undone:?}");
    assert_eq!(stage.generation(server.address())?, 1);
    stage.until_steady(PORT)?;

    let stays = run(&stage, "blue-green.sh", &["8080", "exit 0"], &server.command(3)?)?;
    ensure!(stays.code == Some(0) && stays.stdout.contains("stays"), "{stays:?}");
    assert_eq!(stage.generation(server.address())?, 3);
    let kept = stage.agent.service(PORT)?;
    assert_eq!(kept.generations.len(), 2, "the old one is there to go back to: {kept:?}");

    let broken = Script::with(PORT, &["--exit", "3"])?;
    let refused = run(&stage, "blue-green.sh", &["8080", "exit 0"], &broken.command(4)?)?;
    ensure!(refused.code == Some(5), "{refused:?}");
    assert_eq!(stage.generation(server.address())?, 3);
    Ok(())
}

#[test]
fn a_job_deploys_over_nothing_but_what_it_saw() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    let outcome = |output: &Output| -> Result<serde_json::Value> {
        let line = output.stdout.lines().last().context("an outcome")?;
        serde_json::from_str(line).with_context(|| format!("{output:?}"))
    };
    let deployed = run(&stage, "ci-deploy.sh", &["8080"], &server.command(2)?)?;
    ensure!(deployed.code == Some(0), "{deployed:?}");
    assert_eq!(outcome(&deployed)?, serde_json::json!({ "before": 1, "serves": 2, "code": 0 }));
    assert_eq!(stage.generation(server.address())?, 2);

    let broken = Script::with(PORT, &["--exit", "3"])?;
    let refused = run(&stage, "ci-deploy.sh", &["8080"], &broken.command(3)?)?;
    ensure!(refused.code == Some(5), "{refused:?}");
    assert_eq!(outcome(&refused)?, serde_json::json!({ "before": 2, "serves": 2, "code": 5 }));

    // Another deploy comes in between, while this one prepares.
    let another = format!("agent upgrade --port 8080 -- {} >&2", server.command(4)?.join(" "));
    let mut words = vec!["-c".to_owned(), format!("PREPARE='{another}' exec \"$@\""), "sh".into()];
    words.push(Path::new(EXAMPLES).join("ci-deploy.sh").display().to_string());
    words.push("8080".to_owned());
    words.extend(server.command(5)?);
    let late = run(&stage, "/bin/sh", &[], &words)?;
    ensure!(late.code == Some(7), "{late:?}");
    assert_eq!(stage.generation(server.address())?, 4);

    first.kill()?;
    Ok(())
}

#[test]
fn reloading_the_unit_upgrades_and_stopping_it_ends_the_server() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let systemd = Systemd::start(folder)?;
    let binary = Stage::new()?.agent.binary().display().to_string();
    systemd.succeed(&["ln", "-sf", &binary, "/usr/local/bin/agent"])?;
    for unit in ["agent.service", "agent-launcher.socket", "agent-launcher@.service"] {
        let text = fs::read(Path::new(UNITS).join(unit))?;
        systemd.write(&format!("/etc/systemd/system/{unit}"), text)?;
    }
    let example = |name: &str| Ok::<_, anyhow::Error>(fs::read(Path::new(EXAMPLES).join(name))?);
    systemd.write("/etc/systemd/system/web.service", example("web.service")?)?;
    systemd.write("/usr/local/lib/web-unit.sh", example("web-unit.sh")?)?;
    systemd.write("/tmp/server.py", fs::read(SERVER)?)?;
    let release = |arguments: &str| {
        let text = format!("#!/bin/sh\nexec /usr/bin/python3 /tmp/server.py {arguments}\n");
        systemd.write("/usr/local/bin/web-server", text)?;
        systemd.succeed(&[
            "chmod",
            "755",
            "/usr/local/bin/web-server",
            "/usr/local/lib/web-unit.sh",
        ])
    };
    let network = systemd.network()?;
    let serves = || {
        network.enter(|| tests::stage::ask(&mut std::net::TcpStream::connect(("127.0.0.1", PORT))?))
    };
    release("8080 1")?;
    systemd.succeed(&["systemctl", "daemon-reload"])?;
    systemd.succeed(&["systemctl", "start", "web"])?;
    assert_eq!(serves()?, 1);
    for version in [2, 3] {
        release(&format!("8080 {version}"))?;
        systemd.succeed(&["systemctl", "reload", "web"])?;
        assert_eq!(serves()?, version);
    }
    release("8080 4 --exit 3")?;
    ensure!(systemd.succeed(&["systemctl", "reload", "web"]).is_err(), "a broken version");
    assert_eq!(serves()?, 3);
    systemd.succeed(&["systemctl", "stop", "web"])?;
    wait::until("the server to end", LIMIT, || Ok((!network.listens(PORT)?).then_some(())))?;
    Ok(())
}
