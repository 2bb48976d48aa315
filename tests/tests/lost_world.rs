//! What the agent rests on is taken away while it runs: it notices, says so, and no connection is harmed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use agent::api::{GenerationState, ServiceState};
use agent::load::{Plan, Running};
use agent_ebpf::steering::{ListenerSet, ListenerSetKey};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use nix::mount::{MntFlags, MsFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tests::process::Handle;
use tests::servers::{Nginx, Node, Script, Server};
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;
/// Of a server that is to be attached, and cannot be.
const OTHER_PORT: u16 = 8081;

fn load(stage: &Stage, server: &dyn Server) -> Result<Running> {
    let running = stage.load(Plan { upload: None, ..server.plan().one_shot(100) })?;
    stage::until_answers(&running, 1, 20)?;
    Ok(running)
}

async fn nobody_noticed(running: Running) {
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
}

/// A stage whose agent has its runtime directory on a disk of its own, which is small.
struct OnSmallDisk {
    stage: Stage,
}

impl OnSmallDisk {
    fn new() -> Result<Self> {
        let disk = Self { stage: Stage::new()? };
        let options = Some("size=512k,mode=0700");
        nix::mount::mount(Some("lost"), disk.path(), Some("tmpfs"), MsFlags::empty(), options)?;
        Ok(disk)
    }

    fn path(&self) -> &Path {
        self.stage.agent.runtime()
    }

    fn fill(&self) -> Result<()> {
        let mut ballast = fs::File::create(self.path().join("ballast"))?;
        let full = std::iter::repeat_with(|| ballast.write_all(&[0; 4096])).find_map(Result::err);
        let full = full.context("a disk that is never full")?;
        ensure!(full.kind() == io::ErrorKind::StorageFull, "{full}");
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.path().join("ballast"))?)
    }
}

impl Drop for OnSmallDisk {
    fn drop(&mut self) {
        let killed = self.stage.agent.daemon().map_or(Ok(()), |daemon| daemon.kill());
        // What its generations write to is unmounted when they end.
        let unmounted = nix::mount::umount2(self.path(), MntFlags::MNT_DETACH);
        if let (Err(error), _) | (_, Err(error)) = (killed, unmounted.map_err(Into::into)) {
            eprintln!("the small disk is left behind: {error:#}");
        }
    }
}

/// The messages of all events so far.
fn events(stage: &Stage) -> Result<Vec<String>> {
    let events = stage.agent.run(&["events", "-o", "json"])?.success()?.json()?;
    let events = events["events"].as_array().context("a list of events")?;
    Ok(events.iter().filter_map(|event| event["message"].as_str()).map(str::to_owned).collect())
}

/// Waits for an event that says this.
fn until_event(stage: &Stage, part: &str) -> Result<String> {
    let mut last = Vec::new();
    wait::until(part, LIMIT, || {
        // While the control socket is away, nobody answers.
        last = events(stage).unwrap_or_default();
        Ok(last.iter().find(|message| message.contains(part)).cloned())
    })
    .with_context(|| format!("{last:#?}"))
}

#[tokio::test]
async fn pins_that_are_removed_are_made_again_and_steering_never_stops() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let mut old = stage.connect(server.address())?;
    stage.switch(&server, 2, &[])?;
    let before = stage.traces()?;
    let running = stage.load(Plan { upload: None, ..server.plan().one_shot(100) })?;
    stage::until_answers(&running, 2, 20)?;

    fs::remove_file(stage.agent.pins().join("v1/links/steer"))?;
    until_event(&stage, "v1/links/steer` was removed, and was made again")?;
    // At once, since the agent would not let `rm -r` come to an end.
    let mut aside = stage.agent.pins().as_os_str().to_owned();
    aside.push("-aside");
    fs::rename(stage.agent.pins(), &aside)?;
    until_event(&stage, "v1/maps/ENDPOINTS` was removed, and was made again")?;
    fs::remove_dir_all(aside)?;
    wait::until("all that was there", LIMIT, || Ok((stage.traces()? == before).then_some(())))?;
    let answers = running.snapshot().answers();
    stage::until_answers(&running, 2, answers + 100)?;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [2]);
    assert_eq!(stage::ask(&mut old)?, 1);

    // The pins are the real ones: steering goes on without the agent, and the next one goes on from them.
    stage.agent.daemon().context("the agent runs")?.kill()?;
    assert_eq!(stage.generation(server.address())?, 2);
    assert_eq!(stage.agent.attach(PORT)?.success()?.json()?["changed"], false);
    drop(old);
    stage.until_steady(PORT)?;
    stage.detach(PORT)?;
    assert!(!stage.agent.pins().exists());
    Ok(())
}

#[tokio::test]
async fn files_that_are_removed_are_made_again_and_a_waiting_command_goes_on() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let running = load(&stage, &server)?;
    let mut old = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    let upgrade = tests::agent::upgrade(PORT, &[], &server.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage::until_answers(&running, 2, 20)?;

    let runtime = stage.agent.runtime().to_owned();
    for name in ["agent.sock", "state.json", "lock", "agent.pid"] {
        fs::remove_file(runtime.join(name))?;
        until_event(&stage, &format!("/{name}` was removed, and was made again"))?;
    }
    let second = stage.agent.run(&["daemon"])?;
    assert_eq!(second.code, Some(7), "the lock holds again: {second:?}");
    let aside = runtime.with_extension("aside");
    fs::rename(&runtime, &aside)?;
    until_event(&stage, &format!("`{}` was removed, and was made again", runtime.display()))?;
    fs::remove_dir_all(aside)?;
    wait::until("the state file", LIMIT, || Ok(runtime.join("state.json").exists().then_some(())))?;

    // What was written is enough for the next agent, which the waiting command finds by itself.
    stage.agent.daemon().context("the agent runs")?.kill()?;
    assert_eq!(stage.agent.attach(PORT)?.success()?.json()?["changed"], false);
    nobody_noticed(running).await;
    drop(old);
    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    stage.detach(PORT)
}

/// Stops the agent and lets it go on; every test here may fail in between.
struct Stopped(Pid);

impl Stopped {
    fn agent_of(stage: &Stage) -> Result<Self> {
        let pid = stage.agent.daemon().context("the agent runs")?.pid();
        let stopped = Self(Pid::from_raw(pid).context("a process number")?);
        kill_process(stopped.0, Signal::STOP)?;
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = kill_process(self.0, Signal::CONT) {
            eprintln!("the agent cannot go on: {error}");
        }
    }
}

#[tokio::test]
async fn lost_reports_are_noticed_and_what_they_were_about_is_found_out() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let running = load(&stage, &server)?;
    // A report is 32 bytes long, in a ring of 64 KiB: the last one, which matters, finds no room.
    let candidate = Script::with(PORT, &["--after", "3", "--listen-before", "2500"])?;
    let upgrade = tests::agent::upgrade(PORT, &["--timeout", "30s"], &candidate.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage.until("the candidate's process", PORT, |service| {
        stage::generations(service).get(&2).is_some_and(|it| !it.pids.is_empty())
    })?;

    let stopped = Stopped::agent_of(&stage)?;
    wait::until("the candidate to listen", LIMIT, || {
        let listeners = stage.listeners()?;
        Ok((listeners.iter().filter(|it| it.port == PORT).count() == 2).then_some(()))
    })?;
    drop(stopped);

    let told = until_event(&stage, "reports of the kernel programs were lost")?;
    let lost: u32 = told.split(' ').next().context("a number")?.parse()?;
    assert!(lost > 400, "{told}");
    stage::until_answers(&running, 2, 20)?;
    nobody_noticed(running).await;
    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    // Told of once, and not again by the next agent.
    let told =
        |messages: Vec<String>| messages.iter().filter(|it| it.contains("were lost")).count();
    assert_eq!(told(events(&stage)?), 1);
    stage.agent.daemon().context("the agent runs")?.kill()?;
    stage.agent.attach(PORT)?.success()?;
    stage.switch(&server, 3, &[])?;
    assert_eq!(told(events(&stage)?), 0);
    Ok(())
}

/// Runs a command that must be refused because of the disk, in words that help.
fn refused_for_the_disk<S: AsRef<std::ffi::OsStr>>(stage: &Stage, command: &[S]) -> Result<()> {
    let refused = stage.agent.run(command)?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let state = stage.agent.runtime().join("state.json").display().to_string();
    for part in ["nothing has changed", &state, "No space left on device", "make room"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn on_a_full_disk_requests_are_refused_and_what_happens_is_taken() -> Result<()> {
    let (server, other) = (Script::new(PORT)?, Script::new(OTHER_PORT)?);
    let disk = OnSmallDisk::new()?;
    let stage = &disk.stage;
    let mut first = stage.start(&server, 1)?;
    let _other = stage.start(&other, 1)?;
    stage.agent.attach(PORT)?.success()?;
    let running = load(stage, &server)?;
    let mut old = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    let candidate = Script::with(PORT, &["--after", "2"])?;
    let upgrade = tests::agent::upgrade(PORT, &[], &candidate.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage.until("the candidate's process", PORT, |service| {
        stage::generations(service).get(&2).is_some_and(|it| !it.pids.is_empty())
    })?;
    disk.fill()?;

    // It becomes ready nevertheless, and new connections go to it; but nobody is ended.
    stage::until_answers(&running, 2, 20)?;
    stage.until("the drain", PORT, |service| {
        service.generations[0].state == GenerationState::Draining
    })?;
    refused_for_the_disk(stage, &["undo", "--port", &PORT.to_string()])?;
    assert_eq!(stage::ask(&mut old)?, 1);
    drop(old);
    let service = stage.until("the end of the drain", PORT, |service| {
        service.generations[0].state == GenerationState::Stopping
    })?;
    assert_eq!(service.state, ServiceState::Degraded);
    assert!(service.troubles[0].contains("No space left on device"), "{:?}", service.troubles);
    until_event(stage, "until the state is saved")?;
    assert!(first.lives()?);
    let before = stage.agent.service(PORT)?;

    refused_for_the_disk(stage, &tests::agent::upgrade(PORT, &[], &server.command(3)?))?;
    refused_for_the_disk(stage, &["attach", "--port", &OTHER_PORT.to_string()])?;
    let after = stage.agent.service(PORT)?;
    assert_eq!(after.generations.len(), before.generations.len());
    assert_eq!(after.rollouts.len(), before.rollouts.len());
    assert_eq!(stage.agent.status()?["services"].as_array().map(Vec::len), Some(1));
    assert_eq!(stage.generation(other.address())?, 1);
    assert!(!disk.path().join("state.new").exists());
    assert!(first.lives()?);

    disk.free()?;
    until_event(stage, "the state is written down again")?;
    upgrade.finish()?.success()?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    assert!(!first.lives()?);

    disk.fill()?;
    refused_for_the_disk(stage, &["detach", "--port", &PORT.to_string()])?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    let steered = service.steered;
    nobody_noticed(running).await;
    assert!(stage.agent.service(PORT)?.steered > steered);
    disk.free()?;
    stage.detach(PORT)
}

/// Takes the agent's descriptors away, all but those that it has; gives them back when dropped.
struct Exhausted {
    agent: Pid,
    before: Rlimit,
}

impl Exhausted {
    fn agent_of(stage: &Stage) -> Result<Self> {
        let number = stage.agent.daemon().context("the agent runs")?.pid();
        let agent = Pid::from_raw(number).context("a process number")?;
        let mut open = Vec::new();
        for entry in fs::read_dir(format!("/proc/{number}/fd"))? {
            open.push(entry?.file_name().to_string_lossy().parse::<u64>()?);
        }
        // The next one that the kernel would give.
        let next = (0..).find(|number| !open.contains(number)).context("a free number")?;
        let before = getrlimit_of(number)?;
        let limit = Rlimit { current: Some(next), maximum: before.maximum };
        prlimit(Some(agent), Resource::Nofile, limit)?;
        Ok(Self { agent, before })
    }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        let limit = Rlimit { current: self.before.current, maximum: self.before.maximum };
        if let Err(error) = prlimit(Some(self.agent), Resource::Nofile, limit) {
            eprintln!("the agent's descriptors are not given back: {error}");
        }
    }
}

/// The limits of open files.
fn getrlimit_of(pid: i32) -> Result<Rlimit> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.context("the limit")?.split_whitespace().map(str::parse);
    let mut next = || numbers.next().context("a number")?.map_err(anyhow::Error::from);
    Ok(Rlimit { current: Some(next()?), maximum: Some(next()?) })
}

fn refused_for_descriptors(stage: &Stage, command: &[String]) -> Result<()> {
    let refused = stage.agent.run(command)?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["Too many open files", "LimitNOFILE="] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn without_descriptors_requests_are_refused_and_the_rest_is_done_later() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, mut first) = Stage::attached(&server)?;
    let running = load(&stage, &server)?;
    let mut old = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    let upgrade = tests::agent::upgrade(PORT, &[], &server.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage.until("the drain", PORT, |service| {
        service.generations[0].state == GenerationState::Draining
    })?;

    let exhausted = Exhausted::agent_of(&stage)?;
    refused_for_descriptors(&stage, &["status".to_owned()])?;
    refused_for_descriptors(&stage, &tests::agent::upgrade(PORT, &[], &server.command(3)?))?;
    drop(old);
    // At the look at its flows or, if that was just before, at the signal.
    until_event(&stage, "Too many open files")?;
    assert!(first.lives()?);
    let answers = running.snapshot().answers();
    stage::until_answers(&running, 2, answers)?;
    drop(exhausted);

    upgrade.finish()?.success()?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    assert!(!first.lives()?);
    nobody_noticed(running).await;
    Ok(())
}

#[test]
fn a_process_that_cannot_be_opened_is_not_taken_for_dead() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let pids = stage.agent.service(PORT)?.generations[0].pids.clone();
    let exhausted = Exhausted::agent_of(&stage)?;
    // Its master starts another one.
    Handle::open(pids[1])?.kill()?;
    until_event(&stage, "cannot look at generation 1")?;
    drop(exhausted);
    let service = stage.until("its processes", PORT, |service| {
        service.state == ServiceState::Steady && !service.generations[0].pids.contains(&pids[1])
    })?;
    assert_eq!(service.generations[0].state, GenerationState::Primary);
    assert_eq!(service.generations[0].pids.len(), pids.len());
    Ok(())
}

#[test]
fn the_agent_takes_all_descriptors_that_it_may_and_generations_do_not() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let first = stage.start(&server, 1)?;
    let mut daemon = stage.agent.command(&["daemon"]);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=300:").arg(daemon.get_program()).args(daemon.get_args());
    daemon = limited;
    let _daemon = stage.agent.start(&mut daemon)?;
    wait::until("the agent", LIMIT, || Ok(stage.agent.status().ok()))?;
    stage.agent.attach(PORT)?.success()?;
    let agent = stage.agent.daemon().context("the agent runs")?.pid();
    let limit = getrlimit_of(agent)?;
    ensure!(limit.maximum > Some(300), "a hard limit as low as that shows nothing");
    assert_eq!(limit.current, limit.maximum);
    stage.switch(&server, 2, &[])?;
    let service = stage.agent.service(PORT)?;
    let second = stage::generations(&service)[&2].pids[0];
    assert_eq!(getrlimit_of(second)?.current, getrlimit_of(first.pid())?.current);
    Ok(())
}

/// More than half of what the socket map holds: two generations of it do not fit.
const MANY: usize = 2100;

/// The listeners of each generation that steering may lead to, by what the kernel map says.
fn listeners_in_maps(stage: &Stage) -> Result<BTreeMap<u32, u32>> {
    let pin = stage.agent.pins().join("v1/maps/LISTENER_SETS");
    let map = Map::HashMap(MapData::from_pin(pin)?);
    let sets: HashMap<_, ListenerSetKey, ListenerSet> = HashMap::try_from(map)?;
    sets.iter().map(|entry| Ok(entry.map(|(key, set)| (key.generation, set.count))?)).collect()
}

#[tokio::test]
async fn a_candidate_that_does_not_fit_into_the_maps_is_refused_and_the_old_one_serves()
-> Result<()> {
    let many = Script::with(PORT, &["--reuse-port", "--listeners", &MANY.to_string()])?;
    let (stage, _first) = Stage::attached(&many)?;
    let only_first = BTreeMap::from([(1, u32::try_from(MANY)?)]);
    assert_eq!(listeners_in_maps(&stage)?, only_first);
    let running = load(&stage, &many)?;
    // Started by hand, because its listeners have to be there all at once.
    let second = stage.start(&many, 2)?;
    wait::until("all listeners", LIMIT, || {
        Ok((stage.listeners()?.len() == 2 * MANY).then_some(()))
    })?;
    let upgrade = ["upgrade", "--port", "8080", "--pid", &second.pid().to_string()];
    let refused = stage.agent.run(&upgrade)?;
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("it holds 4096"), "{refused:?}");
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 1);
    assert_eq!(listeners_in_maps(&stage)?, only_first);
    drop(second);

    let few = Script::with(PORT, &["--reuse-port"])?;
    stage.switch(&few, 3, &[])?;
    stage::until_answers(&running, 3, 20)?;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [1, 3]);
    Ok(())
}
