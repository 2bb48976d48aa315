//! Whoever else has a say in who gets the connections of a port is found, and told of.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::SockMap;
use aya::programs::SkLookup;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::{Agent, upgrade};
use tests::lookup::yardsticks::YARDSTICKS;
use tests::process::listener_of;
use tests::servers::{Inline, Script, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;

#[test]
fn a_port_of_another_agent_is_refused_whether_that_one_runs_or_not() -> Result<()> {
    let stage = Stage::new()?;
    let server = Script::new(PORT)?;
    let _server = stage.start(&server, 1)?;
    stage.agent.attach(PORT)?.success()?;
    let other = Agent::new(&stage.namespace)?;
    let pins = stage.agent.pins().display().to_string();
    let refused = || {
        let output = other.attach(PORT)?;
        ensure!(output.code == Some(7) && output.stderr.contains(&pins), "{output:?}");
        Ok(output.stderr)
    };
    let daemon = stage.agent.daemon().context("the agent runs")?;
    assert!(refused()?.contains(&format!("held by process {} ", daemon.pid())));
    stage.agent.kill_daemon()?;
    assert!(!refused()?.contains("held by"));
    assert_eq!(stage.generation(server.address())?, 1);

    // Nothing against another port of the same namespace.
    let beside = Script::new(8081)?;
    let _beside = stage.start(&beside, 1)?;
    let attached = other.attach(8081)?.success()?.json()?;
    assert_eq!(attached["warnings"], serde_json::json!([]));
    other.detach(8081)?.success()?;
    stage.agent.start_daemon()?;
    Ok(())
}

/// Somebody's program that leads all connections of a namespace to one listener, as long as this lives.
fn foreign_program(stage: &Stage, listener: &OwnedFd) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(&fs::read(YARDSTICKS).context("read the yardsticks")?)?;
    let mut chosen = SockMap::try_from(ebpf.map_mut("CHOSEN").context("the map")?)?;
    chosen.set(0, listener, 0)?;
    let program: &mut SkLookup = ebpf.program_mut("foreign").context("the program")?.try_into()?;
    program.load()?;
    program.attach(stage.namespace.descriptor())?;
    Ok(ebpf)
}

#[tokio::test]
async fn our_choice_counts_where_another_program_chose_first_and_it_is_named() -> Result<()> {
    let stage = Stage::new()?;
    let server = Script::new(PORT)?;
    let first = stage.start(&server, 1)?;
    let foreign = foreign_program(&stage, &listener_of(first.pid())?)?;

    let attached = stage.attach(PORT, &[])?;
    let us = format!("held by process {} ", std::process::id());
    let named = |warning: &String| warning.contains("`foreign`") && warning.contains(&us);
    assert!(attached.warnings.iter().any(named), "{:?}", attached.warnings);
    let diagnosis = stage.agent.run(&["doctor"])?.stdout;
    assert!(diagnosis.contains("foreign (number "), "{diagnosis}");

    stage.switch(&server, 2, &[])?;
    let answers = stage.answers(&server, 30).await?;
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [2]);
    drop(foreign);
    Ok(())
}

#[test]
fn the_others_of_a_pool_are_named_because_they_starve() -> Result<()> {
    let stage = Stage::new()?;
    let server = Script::with(PORT, &["--reuse-port"])?;
    let started: Vec<_> =
        (1..=3).map(|number| stage.start(&server, number)).collect::<Result<_>>()?;
    wait::until("all to listen", LIMIT, || Ok((stage.listeners()?.len() == 3).then_some(())))?;
    let attached = stage.attach(PORT, &["--pid", &started[1].pid().to_string()])?;
    let [warning] = &attached.warnings[..] else { panic!("{:?}", attached.warnings) };
    assert!(warning.contains("no new connection"), "{warning}");
    for (number, instance) in started.iter().enumerate() {
        assert_eq!(warning.contains(&instance.pid().to_string()), number != 1, "{warning}");
    }
    Ok(())
}

#[test]
fn a_port_that_the_packet_filter_leads_elsewhere_is_told_of() -> Result<()> {
    let stage = Stage::new()?;
    let rules = "table ip nat { chain pre { type nat hook prerouting priority -100; \
                 tcp dport 8080 dnat to 10.88.0.2:80; tcp dport 80 redirect to :8081; }; }";
    let set = stage.namespace.output(Command::new("nft").arg(rules))?;
    ensure!(set.status.success(), "{set:?}");
    for (port, target) in [(PORT, Some("10.88.0.2:80")), (8081, None)] {
        let server = Script::new(port)?;
        let _server = stage.start(&server, 1)?;
        let warnings = stage.attach(port, &[])?.warnings;
        match target {
            Some(target) => assert!(warnings[0].contains(target), "{warnings:?}"),
            None => assert_eq!(warnings, Vec::<String>::new(), "where others are led to"),
        }
        stage.agent.detach(port)?.success()?;
    }
    Ok(())
}

/// Two processes with a listener each, which answer 1 and 2; told so, a program has all connections go to the second.
const CHOOSES_LATER: &str = "
import ctypes, signal, struct
port_is_shared = lambda it: it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
SO_ATTACH_REUSEPORT_CBPF = 51
RETURN_1 = ctypes.create_string_buffer(struct.pack('HBBI', 0x06, 0, 0, 1))
def choose(*_):
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF,
                        struct.pack('HxxxxxxQ', 1, ctypes.addressof(RETURN_1)))
    open(sys.argv[0] + '.chosen', 'w')
signal.signal(signal.SIGUSR2, choose)
port_is_shared(listener)
listener.bind(('::', port)); listener.listen(128)
other = new_listener()
port_is_shared(other)
other.bind(('::', port)); other.listen(128)
if os.fork() == 0:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    listener, answer = other, 2
other.close() if answer == 1 else None
";

#[test]
fn a_program_that_the_server_gives_its_listeners_later_stays_theirs() -> Result<()> {
    let server = Inline::new(PORT, CHOOSES_LATER)?;
    let (stage, first) = Stage::attached(&server)?;
    kill(Pid::from_raw(first.pid()), Signal::SIGUSR2)?;
    let chosen = server.directory().join("server.py.chosen");
    wait::until("its choice", LIMIT, || Ok(chosen.exists().then_some(())))?;
    let upgrade = upgrade(PORT, &[], &server.command(2)?);
    let words: Vec<&str> = upgrade.iter().map(String::as_str).collect();
    let refused = stage.refused(&words, 4)?;
    assert!(refused.contains("SO_ATTACH_REUSEPORT_CBPF"), "{refused}");
    stage.agent.kill_daemon()?;
    stage.agent.start_daemon()?;
    let events = stage.agent.run(&["events"])?.success()?.stdout;
    assert!(events.contains("counts for nothing until the detach"), "{events}");
    stage.agent.detach(PORT)?.success()?;
    for _ in 0..20 {
        assert_eq!(stage.generation(server.address())?, 2, "the second one");
    }
    stage.namespace.clear()
}
