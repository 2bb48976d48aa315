//! The agent under load for a long time, with everything going wrong that can: what `cargo xtask soak` runs.
//!
//! - `cast`: the services, their clients, and broken versions of them
//! - `event`, `acts`: what is done to a service, and how that has to end; `supervisor`, `workers`: what is done behind the
//!   agent's back
//! - `change`, `control`: commands and questions to an agent that may have been killed just now
//! - `intruder`: a hostile server beside the others
//! - `keeper`: who kills the agent, and starts it again
//! - `death`: killing a generation, and which connections it had
//! - `service`, `world`: one service from attach to detach, and what all of them share
//! - `loss`, `stray`, `bound`: whose failure a failure is, whether a connection reached the generation that it was meant for,
//!   and how many failures there may be where none was seen
//! - `sample`, `flat`: what the agent occupies, and whether that grows
//! - `report`, `table`: all numbers, and how they are shown
//!
//! It fails if a client saw a failure that no killed server explains, if a command does not end as it should, if anything grows,
//! and if anything is left behind.

mod acts;
pub(crate) mod bound;
mod cast;
mod change;
mod control;
mod death;
mod event;
mod flat;
mod intruder;
mod keeper;
mod loss;
mod report;
mod sample;
mod service;
mod settings;
mod stray;
mod supervisor;
mod table;
mod workers;
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::event::Event;
pub(crate) use self::loss::Loss;
use agent_load::Running;
use anyhow::{Context as _, Result};

use self::cast::Role;
use self::flat::{Measure, Point};
use self::intruder::Intruder;
use self::keeper::Keeper;
use self::report::{Report, Verdict};
use self::sample::Sampler;
use self::service::{Seen, Service};
use self::settings::Settings;
use self::world::{Notes, World};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::traces::Traces;
use tests::namespace::Namespace;
use tests::servers::{Hostile, Server};
use tests::stage::Stage;

/// Runs for as long as asked, prints what came out, and writes the single values to a file.
pub fn run() -> ExitCode {
    match soak() {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak() -> Result<Verdict> {
    let settings = Settings::given()?;
    let interrupt = Interrupt::listen()?;
    let home = Namespace::current()?;
    let stage = Stage::new()?;
    // All of us: an agent answers only to processes of its own namespace.
    stage.namespace.settle()?;
    let cast = cast::cast()?;
    let hostile = cast::hostile(&cast, &stage.agent)?;
    let mut servers: Vec<&dyn Server> = cast.iter().map(|role| role.server.as_ref() as _).collect();
    servers.push(&hostile);
    let traces = Traces::of(&stage.namespace, &stage.agent, &servers)?;
    drop(servers);
    let machine = Machine::with_cores(u32::try_from(std::thread::available_parallelism()?.get())?)?;
    say(&format!("seed {}, for {:?}", settings.seed, settings.duration));
    let world = World::new(stage, settings, interrupt);
    let played = play(&world, &cast, hostile);
    let World { stage, settings, .. } = world;
    // Whatever happened, all of it ends here; what did not end by itself is looked for.
    drop((stage, cast));
    home.settle()?;
    let left = traces.left_behind()?;
    let played = played.with_context(|| format!("left behind: {}", listed(&left)))?;
    let report = Report::of(machine, &settings, played, &left);
    print!("{}", table::text(&report));
    let json = serde_json::to_vec_pretty(&report)?;
    let file = &settings.file;

    fs::write(file, json).with_context(|| format!("write `{}`", file.display()))?;
    Ok(report.verdict)
}

/// What a run has brought to light.
#[derive(Debug)]
struct Played {
    seen: Vec<Seen>,
    notes: Notes,
    series: BTreeMap<Measure, Vec<Point>>,
    /// Since when the last agent lived, in seconds from the begin, and how long the run lasted.
    last_agent: f64,
    lasted: Duration,
    begun: Instant,
}

fn play(world: &World, cast: &[Role], hostile: Hostile) -> Result<Played> {
    let mut keeper = Keeper::start(world)?;
    let numbered = (0..).zip(cast);
    let services = numbered.map(|(number, role)| Service::open(world, role, number));
    let mut services = services.collect::<Result<Vec<_>>>()?;
    let mut intruder = Intruder::open(world, hostile)?;
    let mut sampler = Sampler::new(world)?;
    let clients: Vec<_> = services.iter().map(Service::clients).collect();
    world.start_clock();
    std::thread::scope(|threads| {
        for service in &mut services {
            threads.spawn(|| service.play());
        }
        threads.spawn(|| intruder.play());
        threads.spawn(|| keeper.play());
        if let Err(error) = watch(world, &mut sampler, &clients) {
            world.give_up(format!("look at what the agent occupies: {error:#}"));
        }
    });
    drop(clients);
    if let Err(error) = world.check() {
        world.fault(error);
    }
    sampler.take()?;
    if let Err(error) = intruder.close() {
        world.fault(format!("end the hostile server: {error:#}"));
    }
    let (last_agent, lasted) = (world.seconds(keeper.since), world.begun.elapsed());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let close = |service: Service<'_>| service.close(&runtime);
    let seen = services.into_iter().map(close).collect::<Result<Vec<_>>>()?;
    if let Err(error) = keeper.stop() {
        world.fault(format!("stop the agent: {error:#}"));
    }
    let (series, notes, begun) = (sampler.series, world.notes().clone(), world.begun);
    Ok(Played { seen, notes, series, last_agent, lasted, begun })
}

/// Takes samples, and says how it goes, until the run is over.
fn watch(world: &World, sampler: &mut Sampler<'_>, clients: &[Arc<Running>]) -> Result<()> {
    let between = (world.settings.duration / SAMPLES).clamp(OFTEN, SELDOM);
    let mut told = Instant::now();
    while !world.is_over() {
        sampler.take()?;
        if told.elapsed() >= world.settings.duration / LINES {
            told = Instant::now();
            progress(world, clients);
        }
        world.pause(between);
    }
    Ok(())
}

fn progress(world: &World, clients: &[Arc<Running>]) {
    let summaries: Vec<_> = clients.iter().map(|running| running.snapshot()).collect();
    let classes = summaries.iter().flat_map(|summary| summary.classes.values());
    let connections: u64 = classes.map(|class| class.connections).sum();
    let failures: u64 = summaries.iter().map(agent_load::Summary::failures).sum();
    let notes = world.notes();
    say(&format!(
        "{:5.0} s: {connections} connections, {failures} failed for any reason, {} events, agent killed {} times",
        world.seconds(Instant::now()),
        notes.events.len(),
        notes.outages.len(),
    ));
}

fn listed(left: &[String]) -> String {
    if left.is_empty() { "nothing".to_owned() } else { left.join(", ") }
}

/// Says on the standard error how it goes.
fn say(what: &str) {
    eprintln!("soak: {what}");
}

/// Samples of a run, and lines about its progress.
const SAMPLES: u32 = 240;
const LINES: u32 = 30;
const OFTEN: Duration = Duration::from_millis(500);
const SELDOM: Duration = Duration::from_secs(15);
