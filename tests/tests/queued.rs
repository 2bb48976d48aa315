//! Connections that nobody has accepted yet when their listener closes: queued, half-open, or known by a cookie only.
//!
//! Each case is also run with the mechanism off, and must lose connections then: else it would show nothing.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use agent::host::sock_diag;
use agent_api::{GenerationState, ServiceView};
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::upgrade;
use tests::loss::HalfOpen;
use tests::servers::{Script, Server as _, Started};
use tests::stage::{self, Stage};
use tests::wait;

const PORT: u16 = 8080;
const QUEUE: usize = 200;

/// How a listener ends that has connections in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Signalled,
    ClosedEarly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    On,
    Off,
}

/// A stage on which generation 1 accepts nothing and generation 2 takes all new connections.
struct Switched {
    stage: Stage,
    first: Started,
    waiting: Vec<TcpStream>,
}

impl Switched {
    /// `waiting` clients connect before the switch.
    fn new(address: IpAddr, clients: usize, options: &[&str]) -> Result<Self> {
        let at = address.to_string();
        let deaf = Script::with(PORT, &["--address", &at, "--deaf"])?;
        let (stage, first) = Stage::attached(&deaf)?;
        let to = SocketAddr::new(address, PORT);
        let waiting = (0..clients).map(|_| stage.connect(to)).collect::<Result<_>>()?;
        stage.switch(&Script::with(PORT, &["--address", &at])?, 2, options)?;
        Ok(Self { stage, first, waiting })
    }

    fn end(&mut self, how: End) -> Result<()> {
        match how {
            End::Killed => self.first.kill(),
            End::Signalled => Ok(()),
            End::ClosedEarly => Ok(kill(Pid::from_raw(self.first.pid()), Signal::SIGUSR1)?),
        }
    }

    fn until_closed(&self) -> Result<()> {
        wait::until("one listener to be left", stage::LIMIT, || {
            Ok((self.stage.listeners()?.len() == 1).then_some(()))
        })
    }

    fn service(&self) -> Result<ServiceView> {
        self.stage.agent.service(PORT)
    }

    /// How many of the waiting clients generation 2 answers; the others must have been reset.
    fn answered(&mut self) -> Result<usize> {
        let mut answered = 0;
        for stream in &mut self.waiting {
            match stage::ask(stream) {
                Ok(2) => answered += 1,
                Ok(other) => anyhow::bail!("generation {other} answered"),
                Err(error) => ensure!(is_reset(&error), "{error:#}"),
            }
        }
        Ok(answered)
    }
}

fn is_reset(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ConnectionReset | BrokenPipe))
}

const LOCALHOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A deadline makes the agent give up on the queue, which is then moved when the server ends.
fn options(how: End) -> [&'static str; 4] {
    let timeout = if how == End::Signalled { "200ms" } else { "1m" };
    ["--queue-timeout", "100ms", "--drain-timeout", timeout]
}

#[test]
fn a_queue_of_200_moves_however_its_listener_ends() -> Result<()> {
    for address in LOCALHOSTS {
        for how in [End::Killed, End::Signalled, End::ClosedEarly] {
            let mut switched = Switched::new(address, QUEUE, &options(how))?;
            switched.end(how)?;
            switched.until_closed()?;
            assert_eq!(switched.answered()?, QUEUE, "{address} {how:?}");
            let service = switched.stage.until("the moves to be counted", PORT, |service| {
                stage::generations(service)[&2].open_flows == QUEUE as u64
            })?;
            assert_eq!((service.moved, service.stranded), (QUEUE as u64, 0), "{address} {how:?}");
            let events = switched.stage.agent.run(&["events"])?.success()?;
            assert!(events.stdout.contains("moved to generation 2"), "{}", events.stdout);
        }
    }
    Ok(())
}

#[test]
fn without_the_program_a_queue_is_lost_with_its_listener() -> Result<()> {
    for address in LOCALHOSTS {
        for how in [End::Killed, End::Signalled, End::ClosedEarly] {
            let mut switched = Switched::new(address, QUEUE, &["--queue-timeout", "1m"])?;
            switched.stage.switch_off_migrate(PORT)?;
            match how {
                End::Signalled => kill(Pid::from_raw(switched.first.pid()), Signal::SIGTERM)?,
                End::Killed | End::ClosedEarly => switched.end(how)?,
            }
            switched.until_closed()?;
            assert_eq!(switched.answered()?, 0, "{address} {how:?}");
            assert_eq!(switched.service()?.moved, 0);
        }
    }
    Ok(())
}

#[test]
fn moved_flows_do_not_hold_up_the_drain_of_the_generation_that_did_not_accept_them() -> Result<()> {
    let mut switched = Switched::new(LOCALHOSTS[0], QUEUE, &["--queue-timeout", "10ms"])?;
    switched.end(End::ClosedEarly)?;
    switched.until_closed()?;
    assert_eq!(switched.answered()?, QUEUE);
    switched.stage.until_steady(PORT)?;
    assert_eq!(stage::ask(&mut switched.waiting[0])?, 2, "its flow outlives generation 1");
    Ok(())
}

/// Connects a client whose handshake the server does not see the end of.
fn half_open(stage: &Stage, address: IpAddr) -> Result<(HalfOpen, TcpStream)> {
    let losing = HalfOpen::begin(&stage.namespace, PORT)?;
    let client = stage.connect(SocketAddr::new(address, PORT))?;
    Ok((losing, client))
}

/// What the client sends completes the handshake.
fn complete(losing: HalfOpen, client: &mut TcpStream) -> Result<u32> {
    client.write_all(b"GET /generation HTTP/1.1\r\n")?;
    losing.end()?;
    stage::ask_on(client, b"Host: test\r\n\r\n")
}

#[test]
fn the_old_generation_is_not_told_to_end_while_a_handshake_with_it_is_half_open() -> Result<()> {
    for address in LOCALHOSTS {
        let at = address.to_string();
        let server = Script::with(PORT, &["--address", &at])?;
        let (stage, _first) = Stage::attached(&server)?;
        let (losing, mut client) = half_open(&stage, address)?;
        stage.switch(&server, 2, &[])?;
        let clearing = stage.agent.service(PORT)?;
        assert_eq!(stage::generations(&clearing)[&1].state, GenerationState::Clearing);
        assert_eq!(complete(losing, &mut client)?, 1, "{address}");
        drop(client);
        stage.until_steady(PORT)?;
    }
    Ok(())
}

#[test]
fn a_handshake_that_takes_longer_than_the_queue_timeout_moves() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let (losing, mut client) = half_open(&stage, LOCALHOSTS[0])?;
    stage
        .agent
        .run(&upgrade(PORT, &["--queue-timeout", "50ms"], &server.command(2)?))?
        .success()?;
    assert_eq!(complete(losing, &mut client)?, 2, "generation 1 is gone");
    Ok(())
}

#[test]
fn a_half_open_request_moves_when_its_listener_is_killed() -> Result<()> {
    for (address, mechanism) in LOCALHOSTS
        .into_iter()
        .zip([Mechanism::On, Mechanism::On])
        .chain(LOCALHOSTS.into_iter().zip([Mechanism::Off, Mechanism::Off]))
    {
        let at = address.to_string();
        let server = Script::with(PORT, &["--address", &at])?;
        let (stage, first) = Stage::attached(&server)?;
        let (losing, mut client) = half_open(&stage, address)?;
        stage.switch(&server, 2, &[])?;
        let mut switched = Switched { stage, first, waiting: Vec::new() };
        if mechanism == Mechanism::Off {
            switched.stage.switch_off_migrate(PORT)?;
        }
        switched.end(End::Killed)?;
        switched.until_closed()?;
        let answer = complete(losing, &mut client);
        match mechanism {
            Mechanism::On => assert_eq!(answer?, 2, "{address}"),
            Mechanism::Off => assert!(is_reset(&answer.unwrap_err()), "{address}"),
        }
    }
    Ok(())
}

#[test]
fn a_syn_cookie_of_the_old_generation_is_honoured_by_the_new_one() -> Result<()> {
    for address in LOCALHOSTS {
        let at = address.to_string();
        let server = Script::with(PORT, &["--address", &at])?;
        let stage = Stage::new()?;
        stage.namespace.set("ipv4/tcp_syncookies", "2")?;
        let _first = stage.start(&server, 1)?;
        stage.agent.attach(PORT)?.success()?;
        let (losing, mut client) = half_open(&stage, address)?;
        assert_eq!(stage.namespace.enter(|| Ok(sock_diag::half_open(&[PORT])?))?.len(), 0);
        stage.switch(&server, 2, &[])?;
        assert_eq!(complete(losing, &mut client)?, 2, "{address}");
    }
    Ok(())
}

/// What the shared port is good for: a listener on another one does not know the cookie.
#[test]
fn a_syn_cookie_is_lost_on_a_listener_with_a_port_of_its_own_and_status_says_so() -> Result<()> {
    let (old, new) = (Script::new(PORT)?, Script::new(PORT + 1)?);
    let stage = Stage::new()?;
    stage.namespace.set("ipv4/tcp_syncookies", "2")?;
    let _first = stage.start(&old, 1)?;
    stage.agent.attach(PORT)?.success()?;
    let _second = stage.start(&new, 2)?;
    let (losing, mut client) = half_open(&stage, LOCALHOSTS[0])?;
    let listen = (PORT + 1).to_string();
    // Without a probe: it would be sent a cookie too, and a listener that has sent one takes those of others.
    let to_new = ["upgrade", "--port", "8080", "--listen", &listen, "--ready", "listen"];
    stage.agent.run(&[&to_new[..], &["--wait", "switched"]].concat())?.success()?;
    assert!(is_reset(&complete(losing, &mut client).unwrap_err()));
    let events = stage.agent.run(&["events"])?.success()?;
    assert!(events.stdout.contains("SYN cookies are in use"), "{}", events.stdout);
    Ok(())
}

/// The socket that takes the program away listens for a moment: nothing would keep connections from it.
#[test]
fn an_attach_that_is_taken_back_joins_no_group_that_has_no_program() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let faults = stage.agent.runtime().join("faults");
    fs::create_dir(&faults)?;
    fs::write(faults.join("armed"), "fail steer 0\n")?;
    let left = || -> Result<bool> {
        let passed = fs::read_to_string(faults.join("passed"))?;
        Ok(passed.lines().any(|step| step == "leave-queue"))
    };
    let failed = stage.agent.attach(PORT)?;
    assert!(failed.stderr.contains("steer"), "{failed:?}");
    assert!(!left()?, "there was nothing to leave");
    stage.agent.attach(PORT)?.success()?;
    stage.detach(PORT)?;
    assert!(left()?);
    Ok(())
}
