//! The units, by systemd itself.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use agent_api::ServiceView;
use anyhow::{Context as _, Result, ensure};
use tests::stage::{LIMIT, ask};
use tests::systemd::Systemd;
use tests::wait;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd");
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/python/server.py");
const BINARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/debug/agent");
const ADDRESS: &str = "127.0.0.1:8080";

/// systemd with our units and a server of its own.
fn machine() -> Result<Systemd> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let systemd = Systemd::start(folder)?;
    for unit in ["agent.service", "agent-launcher.socket", "agent-launcher@.service"] {
        let text = fs::read_to_string(Path::new(UNITS).join(unit))?;
        let text = text.replace("/usr/local/bin/agent", &binary()?);
        systemd.write(&format!("/etc/systemd/system/{unit}"), text)?;
    }
    systemd.write("/tmp/server.py", fs::read(SERVER)?)?;
    systemd.write(
        "/etc/systemd/system/web.service",
        "[Service]\nUser=nobody\nExecStart=/usr/bin/python3 /tmp/server.py 8080 1\n",
    )?;
    systemd.succeed(&["systemctl", "daemon-reload"])?;
    systemd.succeed(&["systemctl", "start", "web", "agent"])?;
    wait::until("the server", LIMIT, || Ok(systemd.network()?.listens(8080)?.then_some(())))?;
    Ok(systemd)
}

fn binary() -> Result<String> {
    Ok(fs::canonicalize(BINARY)?.display().to_string())
}

fn agent(systemd: &Systemd, words: &[&str]) -> Result<String> {
    systemd.succeed(&[&[binary()?.as_str()], words].concat())
}

fn upgrade(systemd: &Systemd, generation: &str) -> Result<()> {
    let options = ["upgrade", "--port", "8080", "--settle", "0s", "--cwd", "/"];
    let server = ["--", "/usr/bin/python3", "/tmp/server.py", "8080", generation];
    agent(systemd, &[&options[..], &server].concat()).map(drop)
}

fn serves(systemd: &Systemd) -> Result<u32> {
    let address: SocketAddr = ADDRESS.parse()?;
    systemd.network()?.enter(|| ask(&mut TcpStream::connect(address)?))
}

fn service(systemd: &Systemd) -> Result<ServiceView> {
    let status: serde_json::Value =
        serde_json::from_str(&agent(systemd, &["status", "-o", "json"])?)?;
    Ok(serde_json::from_value(status["services"][0].clone())?)
}

fn main_process(systemd: &Systemd) -> Result<String> {
    systemd.property("agent.service", "MainPID")
}

#[test]
fn the_confined_agent_upgrades_servers_that_are_not() -> Result<()> {
    let systemd = machine()?;
    agent(&systemd, &["attach", "--port", "8080"])?;
    upgrade(&systemd, "2")?;
    assert_eq!(serves(&systemd)?, 2);
    let service = service(&systemd)?;
    let second = service.generations.iter().find(|it| it.number.0 == 2).context("generation 2")?;
    let second_pid = second.pids[0].to_string();
    let second = format!("/proc/{second_pid}");
    let of = |process: &str, name: &str| {
        let text = systemd.succeed(&["cat", &format!("{process}/status")])?;
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.with_context(|| format!("no {name}"))
    };
    let agent_process = format!("/proc/{}", main_process(&systemd)?);
    assert_eq!(of(&agent_process, "NoNewPrivs")?, "NoNewPrivs:\t1");
    assert_eq!(of(&second, "NoNewPrivs")?, "NoNewPrivs:\t0");
    assert_eq!(of(&second, "Seccomp:")?, "Seccomp:\t0");
    assert_eq!(of(&second, "CapBnd")?, of("/proc/1", "CapBnd")?);
    for namespace in ["mnt", "uts"] {
        let link =
            |process: &str| systemd.succeed(&["readlink", &format!("{process}/ns/{namespace}")]);
        assert_eq!(link(&second)?, link("/proc/1")?, "{namespace}");
        assert_ne!(link(&agent_process)?, link("/proc/1")?, "{namespace}");
    }
    ensure!(service.troubles.is_empty(), "{:?}", service.troubles);
    let state = systemd.succeed(&["cat", "/run/agent/state.json"])?;
    ensure!(!state.contains("\"uts\""), "no namespace has to be entered for it: {state}");
    // Nobody is left to take namespaces from: the machine's are the launcher's anyway.
    systemd.succeed(&["kill", "-KILL", &second_pid])?;
    upgrade(&systemd, "3")?;
    assert_eq!(serves(&systemd)?, 3);
    Ok(())
}

#[test]
fn a_restart_a_crash_and_a_stop_of_the_units_end_no_server() -> Result<()> {
    let systemd = machine()?;
    agent(&systemd, &["attach", "--port", "8080"])?;
    upgrade(&systemd, "2")?;
    systemd.succeed(&["systemctl", "restart", "agent"])?;
    assert_eq!(serves(&systemd)?, 2);
    upgrade(&systemd, "3")?;
    let before = main_process(&systemd)?;
    systemd.succeed(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "agent"])?;
    wait::until("the next agent", LIMIT, || {
        let answers = agent(&systemd, &["status"]).is_ok();
        Ok((answers && main_process(&systemd)? != before).then_some(()))
    })?;
    assert_eq!(serves(&systemd)?, 3);
    upgrade(&systemd, "4")?;
    let launchers = systemd.succeed(&[
        "systemctl",
        "list-units",
        "--plain",
        "--no-legend",
        "agent-launcher@*",
    ])?;
    assert_eq!(launchers.lines().count(), 1, "{launchers}");
    systemd.succeed(&["systemctl", "stop", "agent", "agent-launcher.socket"])?;
    assert_eq!(serves(&systemd)?, 4);
    systemd.succeed(&["systemctl", "start", "agent"])?;
    upgrade(&systemd, "5")?;
    assert_eq!(serves(&systemd)?, 5);
    agent(&systemd, &["detach", "8080"])?;
    assert_eq!(serves(&systemd)?, 5);
    Ok(())
}

#[test]
fn the_exposure_of_the_unit_is_what_the_documentation_says() -> Result<()> {
    let unit = Path::new(UNITS).join("agent.service");
    let analysed = std::process::Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", "--threshold=50"])
        .arg(unit)
        .output()?;
    let said = String::from_utf8_lossy(&analysed.stdout).into_owned();
    ensure!(analysed.status.success(), "{said}");
    let documented = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md"))?;
    ensure!(documented.contains("systemd-analyze security"), "it says so");
    Ok(())
}
