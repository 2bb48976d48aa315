//! The system calls of the agent, counted by the kernel at their door.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader};
use nix::libc;
use tests::lookup::yardsticks::YARDSTICKS;
use tests::servers::{Node, Script, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::wait;

use crate::limits::{self, Cost};

const PORT: u16 = 8080;
const UPGRADES: u32 = 5;
/// Opens so many listeners from a port on, and keeps them.
const LISTENERS: &str = "
import signal, socket, sys
first, count = map(int, sys.argv[1:])
listeners = [socket.create_server(('127.0.0.1', first + number)) for number in range(count)]
signal.pause()
";
const FIRST_PORT: u16 = 10_000;
const MANY_PORTS: u16 = 200;
const SERVICES: u16 = 8;
/// An even number: the newest generation takes new connections again afterwards.
const SWITCHES: u32 = 4;
/// More than are listed at any time.
const FLOWS: u64 = 2_000;
/// Datagrams: the kernel puts about a hundred flows into one.
const ONE_LIST: f64 = FLOWS as f64 / 100.0;
const IDLE: Duration = Duration::from_secs(4);
/// Longer than it waits before it looks at logs that were written, its own among them.
const QUIET: Duration = Duration::from_millis(1_500);

/// Counts as long as it lives.
struct Calls {
    _ebpf: Ebpf,
    counts: Array<MapData, u64>,
}

impl Calls {
    fn of(pid: i32) -> Result<Self> {
        let process = u32::try_from(pid)?;
        let namespace = fs::metadata("/proc/self/ns/pid")?;
        let (device, inode) = (namespace.dev(), namespace.ino());
        let mut ebpf = EbpfLoader::new()
            .override_global("PROCESS", &process, true)
            .override_global("NAMESPACE_DEVICE", &device, true)
            .override_global("NAMESPACE_INODE", &inode, true)
            .load(&fs::read(YARDSTICKS)?)?;
        let counts = Array::try_from(ebpf.take_map("CALLS").context("the counts")?)?;
        let program = ebpf.program_mut("count_calls").context("the program that counts")?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        program.attach("sys_enter")?;
        Ok(Self { _ebpf: ebpf, counts })
    }

    /// So far, by the call's number.
    fn counts(&self) -> Result<Vec<u64>> {
        Ok(self.counts.iter().collect::<Result<_, _>>()?)
    }
}

/// Calls that look through all processes, and what opens, lists and reads on the way there.
const OF_WALKS: [libc::c_long; 7] = [
    libc::SYS_readlink,
    libc::SYS_getdents64,
    libc::SYS_openat,
    libc::SYS_open,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_newfstatat,
];

/// What one upgrade took.
struct Upgrade {
    /// Calls that do not depend on how many processes there are.
    calls: f64,
    /// Walks over the descriptors of all processes.
    walks: f64,
}

/// How many descriptors all processes have, ours and those that end meanwhile included.
fn descriptors() -> Result<u64> {
    let mut count = 0;
    for process in fs::read_dir("/proc")? {
        if let Ok(descriptors) = fs::read_dir(process?.path().join("fd")) {
            count += descriptors.count() as u64;
        }
    }
    Ok(count)
}

/// How often each call was made between two counts, the most frequent first.
fn between(before: &[u64], after: &[u64]) -> Vec<(u64, usize)> {
    let counts = before.iter().zip(after).map(|(before, after)| after - before);
    let mut made: Vec<_> = counts.zip(0..).filter(|(count, _)| *count > 0).collect();
    made.sort_unstable_by(|one, other| other.cmp(one));
    made
}

impl Upgrade {
    fn of(made: &[(u64, usize)], descriptors: u64) -> Self {
        let sum = |wanted: &dyn Fn(i64) -> bool| {
            made.iter()
                .filter(|(_, call)| wanted(*call as i64))
                .map(|(count, _)| count)
                .sum::<u64>()
        };
        let calls = sum(&|call| !OF_WALKS.contains(&call));
        let walks = sum(&|call| call == libc::SYS_readlink) as f64 / descriptors as f64;
        Self { calls: calls as f64, walks }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How often the threads of a process left a core.
fn switches(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        for line in status.lines().filter(|line| line.contains("ctxt_switches:")) {
            sum += line.rsplit('\t').next().context("a number")?.parse::<u64>()?;
        }
    }
    Ok(sum)
}

#[test]
fn an_upgrade_takes_no_more_system_calls_than_it_did() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let calls = Calls::of(stage.agent.daemon().context("the agent runs")?.pid())?;
    let mut upgrades = Vec::new();
    for generation in 2..2 + UPGRADES {
        let (before, descriptors) = (calls.counts()?, descriptors()?);
        // Ends when the old generation has.
        stage.agent.upgrade(PORT, &server.command(generation)?)?.success()?;
        let made = between(&before, &calls.counts()?);
        eprintln!("how often which call was made: {made:?}");
        upgrades.push(Upgrade::of(&made, descriptors));
    }
    let calls = median(upgrades.iter().map(|upgrade| upgrade.calls));
    let walks = median(upgrades.iter().map(|upgrade| upgrade.walks));
    limits::hold(&[
        Cost::new("system calls per upgrade", calls, limits::CALLS_PER_UPGRADE),
        Cost::new("walks over all descriptors per upgrade", walks, limits::WALKS_PER_UPGRADE),
    ])
}

/// Datagrams that the agent receives while generations are switched to and fro: a list of flows comes in such.
fn datagrams_of_switches(stage: &Stage, calls: &Calls) -> Result<u64> {
    let receive = usize::try_from(libc::SYS_recvfrom)?;
    let before = calls.counts()?[receive];
    for _ in 0..SWITCHES {
        stage.agent.undo(PORT)?.success()?;
    }
    Ok(calls.counts()?[receive] - before)
}

/// Whoever wants something of the agent would wait for the lists.
#[test]
fn a_switch_is_not_followed_by_lists_of_all_flows() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let one = stage.connect(server.address())?;
    stage.switch(&server, 2, &[])?;
    let other = stage.connect(server.address())?;
    let calls = Calls::of(stage.agent.daemon().context("the agent runs")?.pid())?;
    let with_few = datagrams_of_switches(&stage, &calls)?;
    let many = (0..FLOWS).map(|_| stage.connect(server.address())).collect::<Result<Vec<_>>>()?;
    stage.until("all flows", PORT, |service| service.generations[1].open_flows > FLOWS)?;
    let with_many = datagrams_of_switches(&stage, &calls)?;
    drop((one, other, many));
    let more = with_many.saturating_sub(with_few) as f64;
    limits::hold(&[Cost::new("datagrams more with many flows", more, limits::LISTS * ONE_LIST)])
}

/// What is done for one port must not look at all of them.
#[test]
fn the_system_calls_of_an_attach_grow_no_faster_than_its_ports() -> Result<()> {
    let stage = Stage::new()?;
    let ports: Vec<u16> = (FIRST_PORT..FIRST_PORT + MANY_PORTS).collect();
    let mut server = Command::new("python3");
    server.args(["-c", LISTENERS, &FIRST_PORT.to_string(), &MANY_PORTS.to_string()]);
    let server = stage.agent.start(&mut server)?;
    wait::until("all listeners", LIMIT, || {
        Ok((stage.listeners()?.len() == ports.len()).then_some(()))
    })?;
    stage.agent.start_daemon()?;
    let calls = Calls::of(stage.agent.daemon().context("the agent runs")?.pid())?;
    let attach = |ports: &[u16]| {
        let list: Vec<_> = ports.iter().map(u16::to_string).collect();
        let before = calls.counts()?;
        stage.agent.run(&["attach", "--port", &list.join(",")])?.success()?;
        let made = between(&before, &calls.counts()?);
        stage.agent.detach(FIRST_PORT)?.success()?;
        Ok::<_, anyhow::Error>(made.iter().map(|(count, _)| *count).sum::<u64>() as f64)
    };
    let few = attach(&ports[..usize::from(MANY_PORTS / 10)])?;
    let many = attach(&ports)?;
    server.kill()?;
    limits::hold(&[Cost::new("system calls, ten times the ports", many / few, limits::TENFOLD)])
}

#[test]
fn an_idle_agent_does_nothing_at_all() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.agent.upgrade(PORT, &server.command(2)?)?.success()?;
    let daemon = stage.agent.daemon().context("the agent runs")?;
    let calls = Calls::of(daemon.pid())?;
    let counted = || Ok::<_, anyhow::Error>((calls.counts()?, switches(daemon.pid())?));
    // The last command has ended, but maybe not what the agent does about it.
    let mut before = counted()?;
    wait::until("the agent to idle", LIMIT, || {
        assert!(!daemon.ended_within(QUIET)?, "the agent ended");
        let last = std::mem::replace(&mut before, counted()?);
        Ok((last == before).then_some(()))
    })?;
    assert!(!daemon.ended_within(IDLE)?, "the agent ended");
    let after = counted()?;
    let none: [(u64, usize); 0] = [];
    assert_eq!(between(&before.0, &after.0), none, "system calls of an idle agent");
    assert_eq!(after.1, before.1, "an idle agent was woken up");
    // What counts does count.
    stage.agent.status()?;
    assert_ne!(between(&after.0, &calls.counts()?), none);
    Ok(())
}

/// The kernel walks its table of listeners for each look, and whoever wants something of the agent waits meanwhile.
#[test]
fn a_status_looks_at_the_sockets_once_however_many_services_there_are() -> Result<()> {
    let stage = Stage::new()?;
    let last = FIRST_PORT + SERVICES - 1;
    let mut servers = Vec::new();
    for port in FIRST_PORT..=last {
        let mut server = Command::new("python3");
        servers.push(stage.agent.start(server.args(["-c", LISTENERS, &port.to_string(), "1"]))?);
    }
    wait::until("all listeners", LIMIT, || {
        Ok((stage.listeners()?.len() == usize::from(SERVICES)).then_some(()))
    })?;
    stage.agent.attach(FIRST_PORT)?.success()?;
    let calls = Calls::of(stage.agent.daemon().context("the agent runs")?.pid())?;
    let looks = || -> Result<u64> {
        let send = usize::try_from(libc::SYS_sendto)?;
        let before = calls.counts()?[send];
        stage.agent.status()?;
        Ok(calls.counts()?[send] - before)
    };
    let with_one = looks()?;
    for port in FIRST_PORT + 1..=last {
        stage.agent.attach(port)?.success()?;
    }
    // What follows an attach looks, too, and is over some time.
    let mut with_many = 0;
    let same = wait::until("as many looks as with one service", LIMIT, || {
        with_many = looks()?;
        Ok((with_many == with_one).then_some(()))
    });
    servers.into_iter().try_for_each(|it| it.kill())?;
    assert!(with_one > 0, "it looks by another call now");
    same.with_context(|| format!("{with_many} requests to the kernel, not {with_one}"))
}
