//! The old or the new generation is killed in each phase of the old one, over IPv4 and IPv6, with connections in its queue.
//!
//! Each case is also run with the mechanism off, and must lose connections then: else it would show nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use agent_api::{GenerationState, ServiceState};
use agent_ebpf::steering::{MAX_STANDBYS, NO_GENERATION, Steering};
use agent_rollout::PortHold;
use anyhow::{Result, bail};
use aya::maps::{HashMap, Map, MapData};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::Pending;
use tests::process::Handle;
use tests::servers::{Script, Server as _, Started};
use tests::stage::{self, Stage};

const PORT: u16 = 8080;
const QUEUE: usize = 20;
const LOCALHOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The old generation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is frozen, with connections in its queue.
    Clearing,
    /// It has an open connection.
    Draining,
    /// It is kept after that.
    Standby,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Old,
    New,
}

/// Generation 2 of a service serves, generation 1 is in some phase.
struct Switched {
    stage: Stage,
    to: SocketAddr,
    first: Started,
    second: Vec<i32>,
    upgrade: Pending,
    /// Waits to be accepted by the first.
    queue: Vec<TcpStream>,
    /// Was accepted by it.
    open: Option<TcpStream>,
}

impl Switched {
    fn new(address: IpAddr, phase: Phase) -> Result<Self> {
        let server = Script::with(PORT, &["--address", &address.to_string()])?;
        let (stage, first) = Stage::attached(&server)?;
        let to = SocketAddr::new(address, PORT);
        let mut open = None;
        let mut queue = Vec::new();
        if phase == Phase::Clearing {
            send(&[first.pid()], Signal::SIGSTOP)?;
            queue = connect(&stage, to)?;
        } else {
            let mut stream = stage.connect(to)?;
            assert_eq!(stage::ask(&mut stream)?, 1);
            open = Some(stream);
        }
        // The server may go with its directory, and the next one is to live on.
        let options = ["--cwd", "/", "--queue-timeout", "1m", "--keep-old", "1h"];
        let words = tests::agent::upgrade(PORT, &options, &server.command(2)?);
        let upgrade = stage.agent.start(&mut stage.agent.command(&words))?;
        if phase == Phase::Standby {
            stage.until("the switch", PORT, |it| it.generations.len() == 2 && serves(it, 2))?;
            open = None;
        }
        let state = match phase {
            Phase::Clearing => GenerationState::Clearing,
            Phase::Draining => GenerationState::Draining,
            Phase::Standby => GenerationState::Standby,
        };
        let service = stage.until("the phase", PORT, |service| {
            stage::generations(service).get(&1).is_some_and(|it| it.state == state)
        })?;
        let second = stage::generations(&service)[&2].pids.clone();
        Ok(Self { stage, to, first, second, upgrade, queue, open })
    }

    /// Kills it, with connections in its queue, and returns these.
    fn kill(&mut self, victim: Victim) -> Result<Vec<TcpStream>> {
        if victim == Victim::Old {
            self.first.kill()?;
            return Ok(std::mem::take(&mut self.queue));
        }
        send(&self.second, Signal::SIGSTOP)?;
        let mut queued = connect(&self.stage, self.to)?;
        for pid in &self.second {
            Handle::open(*pid)?.kill()?;
        }
        queued.append(&mut self.queue);
        send(&[self.first.pid()], Signal::SIGCONT)?;
        Ok(queued)
    }
}

fn serves(service: &agent_api::ServiceView, generation: u32) -> bool {
    stage::generations(service).get(&generation).is_some_and(|it| it.takes_new_connections)
}

fn connect(stage: &Stage, to: SocketAddr) -> Result<Vec<TcpStream>> {
    (0..QUEUE).map(|_| stage.connect(to)).collect()
}

fn send(pids: &[i32], signal: Signal) -> Result<()> {
    pids.iter().try_for_each(|pid| Ok(kill(Pid::from_raw(*pid), signal)?))
}

/// How many of these clients are answered, which must be by this generation.
fn answered(streams: &mut [TcpStream], by: u32) -> Result<usize> {
    let mut count = 0;
    for stream in streams {
        match stage::ask(stream) {
            Ok(generation) if generation == by => count += 1,
            Ok(other) => bail!("generation {other} answered"),
            Err(_) => {}
        }
    }
    Ok(count)
}

fn nobody_is_lost(address: IpAddr, phase: Phase, victim: Victim) -> Result<()> {
    let mut switched = Switched::new(address, phase)?;
    let survivor = if victim == Victim::Old { 2 } else { 1 };
    let mut queued = switched.kill(victim)?;
    assert_eq!(answered(&mut queued, survivor)?, queued.len(), "{address} {phase:?} {victim:?}");
    for _ in 0..50 {
        assert_eq!(switched.stage.generation(switched.to)?, survivor);
    }
    if let (Some(open), Victim::New) = (&mut switched.open, victim) {
        assert_eq!(stage::ask(open)?, 1);
    }
    drop((queued, switched.open.take()));
    let upgrade = switched.upgrade.finish()?;
    let expected = match (phase, victim) {
        (Phase::Standby, _) | (Phase::Clearing, Victim::Old) => 0,
        (Phase::Draining, Victim::Old) => 6,
        (Phase::Clearing | Phase::Draining, Victim::New) => 8,
    };
    assert_eq!(upgrade.code, Some(expected), "{address} {phase:?} {victim:?}: {upgrade:?}");
    let service = switched.stage.until_steady(PORT)?;
    assert_eq!(service.state, ServiceState::Steady);
    assert_eq!((service.generations[0].number.0, service.unreached), (survivor, 0));
    Ok(())
}

#[test]
fn whoever_is_killed_in_whatever_phase_nobody_is_lost() -> Result<()> {
    for address in LOCALHOSTS {
        for phase in [Phase::Clearing, Phase::Draining, Phase::Standby] {
            for victim in [Victim::Old, Victim::New] {
                nobody_is_lost(address, phase, victim)?;
            }
        }
    }
    Ok(())
}

#[test]
fn without_the_program_that_moves_them_the_queue_of_whoever_is_killed_is_lost() -> Result<()> {
    for address in LOCALHOSTS {
        let cases = [
            (Phase::Clearing, Victim::Old),
            (Phase::Draining, Victim::New),
            (Phase::Standby, Victim::New),
        ];
        for (phase, victim) in cases {
            let mut switched = Switched::new(address, phase)?;
            switched.stage.switch_off_migrate(PORT)?;
            let survivor = if victim == Victim::Old { 2 } else { 1 };
            let mut queued = switched.kill(victim)?;
            assert_eq!(answered(&mut queued, survivor)?, 0, "{address} {phase:?} {victim:?}");
        }
    }
    Ok(())
}

/// Generation 2 has a port of its own, where only steering leads; generation 3 has the public one, and is killed while no
/// agent runs.
fn killed_with_nobody_but_the_kernel(address: IpAddr, falls_back: bool) -> Result<usize> {
    let server = Script::with(PORT, &["--address", &address.to_string()])?;
    let (stage, _first) = Stage::attached(&server)?;
    let switch_as = |user, generation, more: &[&str]| {
        let mut argv = server.command(generation)?;
        // One that every user may run.
        "/usr/bin/python3".clone_into(&mut argv[0]);
        let options = [&["--cwd", "/", "--user", user], more].concat();
        stage.agent.switch(PORT, &options, &argv)?.success()
    };
    switch_as("nobody", 2, &[])?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(stage::generations(&service)[&2].hold, PortHold::Moved);
    switch_as("root", 3, &["--keep-old", "1h"])?;
    let service = stage.until("generation 2 to be kept", PORT, |service| {
        service.generations[0].state == GenerationState::Standby
    })?;
    stage.agent.kill_daemon()?;
    if !falls_back {
        let map = MapData::from_pin(stage.agent.maps().join("SERVICES"))?;
        let mut services: HashMap<_, u32, Steering> = Map::HashMap(map).try_into()?;
        for id in services.keys().collect::<Result<Vec<_>, _>>()? {
            let steering = services.get(&id, 0)?;
            let alone = Steering { standbys: [NO_GENERATION; MAX_STANDBYS], ..steering };
            services.insert(id, alone, 0)?;
        }
    }
    for pid in &stage::generations(&service)[&3].pids {
        Handle::open(*pid)?.kill()?;
    }
    let to = SocketAddr::new(address, PORT);
    let answered = (0..50).filter_map(|_| stage.generation(to).ok()).filter(|it| *it == 2).count();
    // The next agent is to make it official, and to end what is left.
    stage.agent.start_daemon()?;
    Ok(answered)
}

#[test]
fn the_very_next_connection_goes_to_the_generation_before() -> Result<()> {
    for address in LOCALHOSTS {
        assert_eq!(killed_with_nobody_but_the_kernel(address, true)?, 50, "{address}");
    }
    Ok(())
}

#[test]
fn without_one_to_fall_back_to_connections_are_refused() -> Result<()> {
    for address in LOCALHOSTS {
        assert_eq!(killed_with_nobody_but_the_kernel(address, false)?, 0, "{address}");
    }
    Ok(())
}

/// Nobody else listens: what it has in its queue is lost with it.
#[test]
fn when_the_old_one_dies_before_the_new_one_listens_the_new_one_serves() -> Result<()> {
    let (server, late) = (Script::new(PORT)?, Script::with(PORT, &["--after", "1"])?);
    let (stage, mut first) = Stage::attached(&server)?;
    let words = tests::agent::upgrade(PORT, &["--cwd", "/"], &late.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&words))?;
    stage.until("the candidate's process", PORT, |service| {
        stage::generations(service).get(&2).is_some_and(|it| !it.pids.is_empty())
    })?;
    first.kill()?;
    assert!(stage.generation(server.address()).is_err(), "nobody listens");
    let upgrade = upgrade.finish()?;
    assert_eq!(upgrade.code, Some(0), "{upgrade:?}");
    assert_eq!(stage.generation(server.address())?, 2);
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    Ok(())
}
