//! The port of a server is nobody else's: while it listens elsewhere, since it could not share it, and after a detach.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use agent_api::{GenerationState, ServiceState};
use agent_rollout::PortHold;
use anyhow::{Context as _, Result, ensure};
use tests::agent::upgrade;
use tests::process::Handle;
use tests::servers::{Commanded, Server as _};
use tests::stage::{LIMIT, Stage, generations};
use tests::wait;

const PORT: u16 = 8080;
const NOBODY: &str = "65534";

/// A service whose generation 2 is another user's, and serves alone.
fn moved() -> Result<(Stage, Commanded)> {
    let (stage, _first) = Stage::attached(&server(1)?)?;
    let second = server(2)?;
    stage.switch(&second, 2, &["--user", NOBODY, "--cwd", "/", "--settle", "0s"])?;
    stage.until_steady(PORT)?;
    assert_eq!(hold(&stage, 2)?, PortHold::Moved);
    Ok((stage, second))
}

fn server(generation: u32) -> Result<Commanded> {
    let number = generation.to_string();
    Commanded::new(PORT, &["/usr/bin/python3", "{}/server.py", "8080", &number])
}

fn hold(stage: &Stage, generation: u32) -> Result<PortHold> {
    let service = stage.agent.service(PORT)?;
    Ok(generations(&service).get(&generation).context("the generation is there")?.hold)
}

/// A stranger who tries to listen there, with these socket options.
fn stranger(uid: &str, options: &str, then: &str) -> Command {
    let script = format!(
        "import socket, time\ns = socket.socket()\nfor option in {options}: s.setsockopt(socket.SOL_SOCKET, option, 1)\n\
         s.bind(('0.0.0.0', {PORT}))\ns.listen()\n{then}"
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid", uid, "--regid", uid, "--clear-groups"]);
    command.args(["/usr/bin/python3", "-c", &script]);
    command
}

#[test]
fn nobody_else_can_listen_on_it_and_the_next_generation_can() -> Result<()> {
    let (stage, _second) = moved()?;
    for uid in ["0", "54321"] {
        for options in ["[]", "[2]", "[15]", "[2, 15]"] {
            let tried = stage.namespace.output(&mut stranger(uid, options, ""))?;
            let said = String::from_utf8_lossy(&tried.stderr).into_owned();
            ensure!(!tried.status.success(), "user {uid} with {options} listens there");
            ensure!(said.contains("Address already in use"), "{said}");
        }
    }
    goes_on(&stage, &[])?;
    stage.detach(PORT)
}

/// What was shared for the sake of upgrades is not any more.
#[test]
fn nobody_can_listen_beside_one_that_was_detached() -> Result<()> {
    for upgrades in [false, true] {
        let first = Commanded::new(PORT, &["/usr/bin/python3", "{}/server.py", "8080", "1"])?;
        let (stage, _first) = Stage::attached(&first)?;
        if upgrades {
            stage.switch(&first, 1, &["--settle", "0s"])?;
            stage.until_steady(PORT)?;
        }
        stage.agent.detach(PORT)?.success()?;
        for options in ["[]", "[2]", "[15]", "[2, 15]"] {
            let tried = stage.namespace.output(&mut stranger("0", options, ""))?;
            let said = String::from_utf8_lossy(&tried.stderr).into_owned();
            ensure!(said.contains("Address already in use"), "{upgrades}, {options}: {said}");
        }
        stage.namespace.clear()?;
    }
    Ok(())
}

#[test]
fn a_next_generation_of_another_user_can_have_it_too() -> Result<()> {
    let (stage, _second) = moved()?;
    goes_on(&stage, &["--user", "0"])?;
    stage.detach(PORT)
}

/// Generation 3 has the port itself.
fn goes_on(stage: &Stage, options: &[&str]) -> Result<()> {
    let third = server(3)?;
    stage.switch(&third, 3, options)?;
    assert_eq!(hold(stage, 3)?, PortHold::Shared);
    assert_eq!(stage.generation(third.address())?, 3);
    stage.until_steady(PORT).map(drop)
}

#[test]
fn it_is_free_for_whoever_starts_the_server_again_when_nobody_serves() -> Result<()> {
    let (stage, _second) = moved()?;
    let user = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    let own = ["/usr/bin/python3", "{}/server.py", "8080", "3"];
    let third = Commanded::new(PORT, &[&user[..], &own].concat())?;
    let second = Handle::open(generations(&stage.agent.service(PORT)?)[&2].pids[0])?;
    second.kill()?;
    let _again = wait::until("the port to be free", LIMIT, || Ok(stage.start(&third, 3).ok()))?;
    stage.until("it to be taken in", PORT, |service| {
        generations(service).get(&3).is_some_and(|it| it.hold != PortHold::Moved)
    })?;
    assert_eq!(stage.generation(third.address())?, 3);
    stage.detach(PORT)
}

/// It can only have come while there was no agent.
#[test]
fn a_stranger_who_has_it_is_an_alarm() -> Result<()> {
    let (stage, _second) = moved()?;
    stage.agent.kill_daemon()?;
    let stranger = stage.namespace.spawn(&mut stranger("54321", "[]", "time.sleep(600)"))?;
    let stranger = Handle::open(stranger.id().cast_signed())?;
    wait::until("the stranger to listen", LIMIT, || {
        Ok(stage.namespace.listens(PORT)?.then_some(()))
    })?;
    stage.agent.start_daemon()?;
    let service = stage.agent.service(PORT)?;
    assert_eq!(service.state, ServiceState::Degraded);
    assert_eq!(service.beside[0].pid, stranger.pid());
    let status = stage.agent.run(&["status"])?.success()?.stdout;
    assert!(status.contains("get every connection when generation 2 ends"), "{status}");
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    let named = format!("process {} (", stranger.pid());
    assert!(events.contains(&named) && events.contains("listens on the port too"), "{events}");
    stranger.kill()?;
    stage.until_steady(PORT)?;
    stage.namespace.clear()
}

/// Steering led elsewhere: nobody who had the port before can be meant.
#[test]
fn a_stranger_who_takes_it_after_the_death_of_the_server_is_an_alarm() -> Result<()> {
    let (stage, _second) = moved()?;
    let note = |stage: &Stage| {
        Ok::<_, anyhow::Error>(stage.agent.service(PORT)?.generations[0].note.clone())
    };
    let said = note(&stage)?.context("a note on its port")?;
    ensure!(said.contains("cannot be detached"), "{said}");
    let second = Handle::open(generations(&stage.agent.service(PORT)?)[&2].pids[0])?;
    second.kill()?;
    stage.until("its death", PORT, |service| {
        service.generations[0].state == GenerationState::Dead
    })?;
    assert_eq!(note(&stage)?, None, "it can be");
    let usurper = stage.namespace.spawn(&mut stranger("54321", "[15]", "time.sleep(600)"))?;
    let usurper = Handle::open(usurper.id().cast_signed())?;
    let named = format!("all new connections go to process {} (", usurper.pid());
    let alarms = || {
        let events = stage.agent.run(&["events"])?.success()?.stdout;
        Ok::<_, anyhow::Error>(events.matches(&named).count())
    };
    wait::until("the alarm", LIMIT, || Ok((alarms()? > 0).then_some(())))?;
    // Others who come make the agent look again.
    for _ in 0..3 {
        let beside = stage.namespace.output(&mut stranger("54321", "[15]", ""))?;
        ensure!(beside.status.success(), "{beside:?}");
    }
    stage.agent.status()?;
    assert_eq!(alarms()?, 1);
    let status = stage.agent.run(&["status"])?.success()?.stdout;
    ensure!(status.contains("which is not the service's"), "{status}");
    usurper.kill()?;
    stage.agent.detach(PORT)?.success()?;
    stage.namespace.clear()
}

/// It does so by tracing it: the kernel lets a killed process wait for its tracer, before it closes anything.
#[test]
fn who_keeps_a_generation_from_ending_is_named() -> Result<()> {
    const TRACER: &str = "import ctypes, sys, time
SEIZE, TRACEEXIT = 0x4206, 0x40
if ctypes.CDLL(None, use_errno=True).ptrace(SEIZE, int(sys.argv[1]), 0, TRACEEXIT):
    sys.exit(ctypes.get_errno())
print('traces', flush=True)
time.sleep(120)";
    let server = server(2)?;
    let (stage, first) = Stage::attached(&server)?;
    let mut tracer = Command::new("/usr/bin/python3");
    tracer.args(["-c", TRACER, &first.pid().to_string()]).stdout(Stdio::piped());
    let mut tracer = stage.namespace.spawn(&mut tracer)?;
    let mut said = String::new();
    BufReader::new(tracer.stdout.as_mut().context("its output")?).read_line(&mut said)?;
    assert_eq!(said, "traces\n");
    let options = ["--settle", "0s", "--stop-timeout", "100ms"];
    let upgrade = stage.agent.run(&upgrade(PORT, &options, &server.command(2)?))?;
    assert_eq!(upgrade.code, Some(6), "{upgrade:?}");
    assert!(upgrade.stderr.contains("was killed and has not ended"), "{upgrade:?}");
    let named = format!("before process {}", tracer.id());
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains(&named), "{events}");
    let service = stage.agent.service(PORT)?;
    assert_eq!(service.state, ServiceState::Degraded, "one that was killed is there");
    let told = service.troubles.concat();
    ensure!(told.contains("generation 1 was killed and has not ended: process"), "{told}");
    ensure!(told.contains(&named), "{told}");
    let refused = stage.agent.detach(PORT)?;
    assert_eq!(refused.code, Some(7), "{refused:?}");
    let named = format!("traced by process {}", tracer.id());
    assert!(refused.stderr.contains(&named), "{refused:?}");
    tracer.kill()?;
    tracer.wait()?;
    stage.until_steady(PORT)?;
    stage.detach(PORT)
}
