//! What an upgrade costs, for us and for other ways: what `cargo xtask bench` compares.
//!
//! - `contender`: the scripts in `bench/contenders`, one for each way to upgrade a server
//! - `arena`: one contender in a network namespace, a directory and a cgroup of its own
//! - `turn`: clients of every class while it is upgraded, and what they saw
//! - `steady`: its speed against that of the same server alone
//! - `soaked`: the agent killed, and versions that break
//! - `agent`: the agent by itself, and every target against what was measured
//! - `results`, `machine`, `spread`: what was found, on what, and many values in few
//! - `tables`, `plot`, `document`: how it is shown
//!
//! All contenders have their turn in every round, so that a slow minute of the machine hits all of them. Servers have one
//! core, clients another one.

mod agent;
mod arena;
mod contender;
mod document;
mod machine;
mod plot;
mod results;
mod soaked;
mod spread;
mod steady;
mod tables;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub use self::contender::Contender;
use self::machine::Circumstances;
use self::results::Results;
pub use self::results::{Act, Steady, Switch, Turn};
use self::soaked::Soaked;
pub use self::turn::Rules;
use self::turn::Speed;
use crate::interrupt::Interrupt;
use crate::measure::cores::Cores;
use crate::measure::{self, Report};
use tests::agent::Agent;
use tests::namespace::Namespace;

/// Lets all contenders have their turns, and writes results, tables and plots.
pub fn run() -> ExitCode {
    match Arguments::given().and_then(|arguments| bench(&arguments)) {
        Ok(short) => {
            print!("{short}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One turn of a contender by itself, without a comparison of speed.
///
/// # Errors
///
/// If it cannot have it.
pub fn turn(contender: &Contender, rules: &Rules) -> Result<Turn> {
    turn::take(contender, rules, 1, &Cores::find()?, Speed::LeftOut)
}

fn bench(arguments: &Arguments) -> Result<String> {
    let folder = arguments.folder.join("benchmarks");
    fs::create_dir_all(&folder).with_context(|| format!("make `{}`", folder.display()))?;
    let file = folder.join("results.json");
    let interrupt = Interrupt::listen()?;
    let results = match arguments.rounds {
        // Only the text may have changed.
        0 => Results::read(&file)?,
        rounds => compare(rounds, arguments, &interrupt)?,
    };
    // Before anything else can fail: it took an hour.
    results.write(&file)?;
    let soaked = soak(arguments, &folder.join("soak.json"), &interrupt)?;
    let report = by_itself(arguments, &folder.join("agent.json"), &interrupt)?;
    document::write(&results, soaked.as_ref(), report.as_ref(), &arguments.folder)?;
    Ok(tables::short(&results))
}

/// The agent where things go wrong; nothing in a quick run, and where only some contenders were wanted.
fn soak(arguments: &Arguments, file: &Path, interrupt: &Interrupt) -> Result<Option<Soaked>> {
    if !arguments.only.is_empty() {
        return Ok(None);
    }
    if arguments.rounds == 0 {
        return file.exists().then(|| soaked::read(file)).transpose();
    }
    let minutes = soaked::minutes(arguments.rounds);
    minutes.map(|minutes| soaked::run(minutes, file, interrupt)).transpose()
}

/// The agent without the others; nothing where only some of these were wanted.
fn by_itself(arguments: &Arguments, file: &Path, interrupt: &Interrupt) -> Result<Option<Report>> {
    if !arguments.only.is_empty() {
        return Ok(None);
    }
    if arguments.rounds == 0 {
        return agent::read(file);
    }
    // Last of all: this thread is in another network namespace from here on.
    let report = measure::measure(interrupt, arguments.rounds)?;
    agent::write(&report, file)?;
    Ok(Some(report))
}

fn compare(rounds: u32, arguments: &Arguments, interrupt: &Interrupt) -> Result<Results> {
    let cores = Cores::find()?;
    let wanted = |contender: &Contender| {
        arguments.only.is_empty() || arguments.only.contains(&contender.name)
    };
    let contenders: Vec<_> = Contender::all()?.into_iter().filter(wanted).collect();
    let circumstances = Circumstances::now(rounds, RULES.upgrades + 1, &arguments.command)?;
    let gaps = gaps(&contenders)?;
    let mut results = Results { circumstances, contenders, gaps, turns: Vec::new() };
    for round in 1..=rounds {
        for contender in &results.contenders {
            interrupt.check()?;
            if results.gaps.contains_key(&contender.name) {
                continue;
            }
            eprintln!("bench: round {round} of {rounds}: {}", contender.title);
            match turn::take(contender, &RULES, round, &cores, Speed::Compared) {
                Ok(turn) => results.turns.push(turn),
                Err(error) => {
                    eprintln!("bench: {}: {error:#}", contender.title);
                    let reason = format!("round {round}: {}", error.root_cause());
                    results.gaps.insert(contender.name.clone(), reason);
                }
            }
        }
    }
    results.circumstances.end()?;
    Ok(results)
}

/// Those who lack a program.
fn gaps(contenders: &[Contender]) -> Result<BTreeMap<String, String>> {
    let agent = Agent::new(&Namespace::current()?)?;
    let mut gaps = BTreeMap::new();
    for contender in contenders {
        let missing = arena::missing(contender, agent.binary())?;
        if !missing.is_empty() {
            gaps.insert(contender.name.clone(), format!("there is no {}", missing.join(", ")));
        }
    }
    Ok(gaps)
}

/// What `cargo xtask bench` passes on: `bench ROUNDS FOLDER COMMAND [NAME…]`.
#[derive(Debug)]
struct Arguments {
    /// None to write the document anew from the results that are there.
    rounds: u32,
    /// For `benchmarks.md`, with all else in `benchmarks` beside it.
    folder: PathBuf,
    /// What was typed.
    command: String,
    /// Which contenders; all if empty.
    only: BTreeSet<String>,
}

impl Arguments {
    fn given() -> Result<Self> {
        let mut words = env::args().skip(1);
        let (Some(rounds), Some(folder), Some(command)) =
            (words.next(), words.next(), words.next())
        else {
            bail!("use `cargo xtask bench`: this takes rounds, a folder, a command and names");
        };
        let rounds = rounds.parse().context("the number of rounds is not a number")?;
        Ok(Self { rounds, folder: folder.into(), command, only: words.collect() })
    }
}

const RULES: Rules = Rules { upgrades: 3, interval: Duration::from_secs(2), rate: 1_500 };
