//! Random schedules of events, failures and crashes, against a short model of servers and kernel.
//!
//! A schedule is what a seed makes of it: upgrades and undos of every kind, connections that come, are queued, accepted and
//! ended, servers that die, close their listeners or open others, effects that fail, an agent that crashes before or after any
//! effect and any writing down, and kernel maps that are removed while none runs. `world` has the servers and the kernel, and judges what is done to them; `agent` is the daemon in
//! miniature around the real [`Service`]; `recovery` has it come back; `restart` starts servers behind its back; `schedule` makes things happen.
//!
//! What is checked at every step:
//!
//! - no connection is refused while a generation lives that can serve;
//! - when all reports are taken, steering leads to a live generation if there is one;
//! - a generation that has accepted nothing takes the place of none that serves;
//! - where nobody serves, a server that somebody started anew is the primary as soon as all reports are taken, also if the agent
//!   crashed on the way, and nowhere else;
//! - none is told to end before the one that replaced it has proved itself;
//! - a generation is told to end once, when steering leads to it no more, with nothing in its queues and no flow that is
//!   waited for, and while somebody else can serve;
//! - what is written down of the listeners and processes of a generation that is steered to is what it has;
//! - no effect is executed twice, whenever the agent crashed;
//! - in the end every rollout has ended, one generation is left, and nothing of the others.
//!
//! `AGENT_SIMULATOR_SEED=N cargo test -p agent simulator` replays one schedule and prints its steps.

mod agent;
mod recovery;
mod restart;
mod schedule;
mod world;

use std::{
    collections::{HashSet, VecDeque},
    mem::{Discriminant, discriminant},
    time::Duration,
};

use agent_terms::{GenerationNumber, ServiceId};

use self::{agent::Agent, world::World};
use super::{Generation, Listening, Origin, Outcome, Phase, PortHold, Service, Status, Timestamp};

/// How many schedules are tried.
const SCHEDULES: u64 = 100_000;

/// One schedule under way.
struct Simulation {
    random: fastrand::Rng,
    world: World,
    /// What is written down.
    disk: Service,
    /// Whether nothing can be written down.
    disk_full: bool,
    /// None while it is down.
    agent: Option<Agent>,
    reports: VecDeque<Report>,
    now: Timestamp,
    /// How long new primaries have to prove themselves in this schedule.
    settle: Duration,
    /// Whether it is enough that the next server listens.
    lenient: bool,
    /// Whether the agent crashes often in this schedule, and somebody removes what is pinned each time.
    removals: bool,
    /// Whether nothing fails or crashes any more.
    calm: bool,
    failing: bool,
    mutation: Option<Mutation>,
    steps: Option<Vec<String>>,
    reached: Option<Reached>,
}

/// What a schedule is worth: the phases and the outcomes that came about.
#[derive(Debug, Default)]
struct Reached {
    phases: HashSet<Discriminant<Phase>>,
    outcomes: HashSet<Discriminant<Outcome>>,
    /// What was written down when something came about for the first time.
    services: Vec<Service>,
}

impl Reached {
    fn note(&mut self, service: &Service) {
        let before = (self.phases.len(), self.outcomes.len());
        self.phases.extend(service.generations.iter().map(|it| discriminant(&it.phase)));
        for rollout in &service.rollouts {
            if let Status::Ended(outcome) = &rollout.status {
                self.outcomes.insert(discriminant(outcome));
            }
        }
        if before != (self.phases.len(), self.outcomes.len()) {
            self.services.push(service.clone());
        }
    }

    /// By so many schedules.
    fn by(schedules: u64) -> Self {
        let mut reached = Self::default();
        for seed in 0..schedules {
            let mut simulation = Simulation::new(seed, None);
            simulation.reached = Some(reached);
            assert_eq!(simulation.run(), Ok(()));
            reached = simulation.reached.unwrap_or_default();
        }
        reached
    }
}

/// Services with generations in every phase and rollouts with every outcome.
pub fn examples() -> Vec<Service> {
    Reached::by(ENOUGH).services
}

/// A service of which one generation was found running.
pub(crate) fn attached() -> Service {
    let first = Generation::new(GenerationNumber(1), Phase::Primary, Origin::Found, Timestamp(0));
    let listening = Listening { hold: PortHold::Shared, listeners: Vec::new() };
    let first = first.found(listening, Vec::new());
    Service::attached(ServiceId(1), "web".parse().expect("a name"), Vec::new(), first)
}

/// So many schedules reach everything.
const ENOUGH: u64 = 1000;

/// What the agent is told of, if it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    Exited(GenerationNumber),
    Closed(GenerationNumber),
    Appeared(GenerationNumber),
    /// There may be a server that is nobody's.
    Stranger,
}

/// Why a step was not made to its end.
#[derive(Debug)]
enum Halt {
    Crashed,
    /// A promise was.
    Broken(String),
}

/// An agent that is wrong in one thing: each must be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    ActsBeforeItWrites,
    LastEffectFirst,
    ForgetsStandbys,
    LooksBeforeItSteers,
    LooksAway,
    TrustsThePrimary,
    ResumesBlindly,
    ForgetsSignals,
    LeavesTraces,
    EndsUnsaved,
    TakesListeningForAccepting,
    DoesNotSettle,
    TakesStrangersWhereOneServes,
    ForgetsStrangers,
    ForgetsListeners,
    TrustsWhatWasBefore,
}

impl Simulation {
    fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let disk = attached();
        let mut simulation = Self {
            random: fastrand::Rng::with_seed(seed),
            world: World::default(),
            disk,
            disk_full: false,
            agent: None,
            reports: VecDeque::new(),
            now: Timestamp(0),
            settle: Duration::ZERO,
            lenient: true,
            removals: false,
            calm: true,
            failing: false,
            mutation,
            steps: None,
            reached: None,
        };
        if simulation.one_in(2) {
            simulation.settle = Duration::from_secs(3);
        }
        simulation.removals = simulation.one_in(4);
        simulation.appear(GenerationNumber(1));
        simulation.world.adopt(GenerationNumber(1));
        simulation
    }

    /// Makes the schedule happen; says which promise was broken.
    fn run(&mut self) -> Result<(), String> {
        let broken = |halt| match halt {
            Halt::Broken(promise) => promise,
            Halt::Crashed => "it crashed in a calm world".to_owned(),
        };
        self.start().map_err(broken)?;
        self.calm = false;
        for _ in 0..self.random.u32(10..80) {
            match self.step() {
                Ok(()) => {}
                Err(Halt::Crashed) => self.crash(),
                Err(Halt::Broken(promise)) => return Err(promise),
            }
        }
        self.calm = true;
        self.end().map_err(broken)
    }

    fn generation(&self, number: GenerationNumber) -> Option<&Generation> {
        self.agent.as_ref()?.service.generation(number)
    }

    fn phase(&self, number: GenerationNumber) -> Option<Phase> {
        self.generation(number).map(|it| it.phase.clone())
    }

    fn lives(&self, number: GenerationNumber) -> bool {
        self.world.servers.get(&number).is_some_and(|it| it.alive)
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.random.u32(0..times) == 0
    }

    fn may_crash(&mut self) -> Result<(), Halt> {
        let crashes = if self.removals { 10 } else { 40 };
        if !self.calm && self.one_in(crashes) { Err(Halt::Crashed) } else { Ok(()) }
    }

    /// What fails once fails again for some time.
    fn fails(&mut self) -> bool {
        self.failing = !self.calm && if self.failing { !self.one_in(8) } else { self.one_in(10) };
        self.failing
    }

    fn report(&mut self, report: Report) {
        if self.agent.is_some() {
            self.reports.push_back(report);
        }
    }

    fn note(&mut self, step: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.steps {
            steps.push(step());
        }
    }
}

fn broken<T>(promise: String) -> Result<T, Halt> {
    Err(Halt::Broken(promise))
}

/// One schedule once more, with every step.
fn replay(seed: u64, mutation: Option<Mutation>) -> (Result<(), String>, String) {
    let mut simulation = Simulation::new(seed, mutation);
    simulation.steps = Some(Vec::new());
    let result = simulation.run();
    (result, simulation.steps.unwrap_or_default().join("\n"))
}

fn first_broken(schedules: u64, mutation: Option<Mutation>) -> Option<(u64, String)> {
    (0..schedules).find_map(|seed| Some((seed, Simulation::new(seed, mutation).run().err()?)))
}

#[test]
fn the_simulator_finds_no_broken_promise() {
    if let Ok(seed) = std::env::var("AGENT_SIMULATOR_SEED") {
        let seed = seed.parse().expect("AGENT_SIMULATOR_SEED is a number");
        let (result, steps) = replay(seed, None);
        println!("{steps}");
        return assert_eq!(result, Ok(()));
    }
    if let Some((seed, promise)) = first_broken(SCHEDULES, None) {
        let steps = replay(seed, None).1;
        panic!(
            "{promise}\nafter these steps:\n{steps}\nagain: AGENT_SIMULATOR_SEED={seed} cargo test -p agent simulator"
        );
    }
}

#[test]
fn the_schedules_reach_every_phase_and_every_outcome() {
    let reached = Reached::by(ENOUGH);
    assert_eq!((reached.phases.len(), reached.outcomes.len()), (9, 7));
}

#[test]
fn the_simulator_finds_each_agent_out_that_is_wrong_in_one_thing() {
    use Mutation::{
        ActsBeforeItWrites, DoesNotSettle, EndsUnsaved, ForgetsListeners, ForgetsSignals,
        ForgetsStandbys, ForgetsStrangers, LastEffectFirst, LeavesTraces, LooksAway,
        LooksBeforeItSteers, ResumesBlindly, TakesListeningForAccepting,
        TakesStrangersWhereOneServes, TrustsThePrimary, TrustsWhatWasBefore,
    };
    for mutation in [
        ActsBeforeItWrites,
        LastEffectFirst,
        ForgetsStandbys,
        LooksBeforeItSteers,
        LooksAway,
        TrustsThePrimary,
        ResumesBlindly,
        ForgetsSignals,
        LeavesTraces,
        EndsUnsaved,
        TakesListeningForAccepting,
        DoesNotSettle,
        TakesStrangersWhereOneServes,
        ForgetsStrangers,
        ForgetsListeners,
        TrustsWhatWasBefore,
    ] {
        let found = first_broken(SCHEDULES, Some(mutation));
        let (seed, promise) = found.unwrap_or_else(|| panic!("{mutation:?} is not found out"));
        println!("{mutation:?}, schedule {seed}: {promise}");
    }
}
