//! What the agent costs and how fast it is, as numbers: what `cargo xtask measure` prints.
//!
//! - `bench`: the server, the agent and the namespace that are measured, and running a command against the clock
//! - `attach`: taking charge of a port and handing it back, under load
//! - `decision`: one decision of the kernel's program by itself
//! - `steering`: the time that the kernel spends in our programs
//! - `steady`: requests to a port that is attached against one that is not
//! - `switch`: putting the other generation back, again and again
//! - `memory`: what the agent and its maps occupy
//! - `idle`: what it uses when nothing happens, and for an upgrade
//! - `growth`: what becomes of it with many flows, ports and generations
//! - `closed_loop`, `control`: the clients
//! - `cores`: where what runs
//! - `sample`, `report`, `targets`: the numbers, how they are shown, and what they were meant to be
//!
//! Everything but growth is one run in one namespace, and what is compared takes turns: the machine's speed changes from minute to
//! minute more than what is looked for. It fails if a command fails, if one client sees a failure, and if connections were
//! not steered that should have been.

mod attach;
mod bench;
pub(crate) mod closed_loop;
mod control;
pub(crate) mod cores;
mod decision;
mod growth;
mod idle;
mod memory;
mod report;
mod sample;
mod steady;
mod steering;
mod switch;
pub(crate) mod targets;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::bench::Bench;
use self::growth::Sizes;
pub(crate) use self::report::Report;
pub(crate) use self::sample::grouped;
use crate::interrupt::Interrupt;
use crate::machine::Machine;

/// Measures everything, prints the table, and writes the single values to a file.
pub fn run() -> ExitCode {
    match Arguments::given().and_then(|arguments| print(&arguments)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Holds connections, for a measurement of growth; see there.
pub fn hold() -> ExitCode {
    growth::hold()
}

fn print(arguments: &Arguments) -> Result<String> {
    let interrupt = Interrupt::listen()?;
    let (json, text) = match &arguments.what {
        Wanted::Everything { rounds } => {
            let report = measure(&interrupt, *rounds)?;
            (serde_json::to_vec_pretty(&report)?, report.markdown())
        }
        Wanted::Growth(sizes) => {
            let growth = growth::measure(&interrupt, sizes)?;
            (serde_json::to_vec_pretty(&growth)?, growth.markdown())
        }
    };
    let file = &arguments.file;
    fs::write(file, json).with_context(|| format!("write `{}`", file.display()))?;
    Ok(text)
}

/// Measures everything. The calling thread is in another network namespace afterwards.
pub(crate) fn measure(interrupt: &Interrupt, rounds: u32) -> Result<Report> {
    let mut bench = Bench::set(interrupt.clone())?;
    let machine = Machine::with_cores(bench.cores.count())?;
    let attach = attach::measure(&mut bench, rounds)?;
    let decision = decision::measure(rounds)?;
    let steering = steering::measure(&bench, rounds)?;
    let steady = steady::measure(&bench, rounds)?;
    let switch = switch::measure(&bench)?;
    let idle = idle::measure(&bench)?;
    let memory = memory::measure(&bench)?;
    drop(bench);
    let growth = growth::measure(interrupt, &Sizes::for_rounds(rounds))?;
    Ok(Report { machine, rounds, attach, decision, steering, steady, switch, idle, memory, growth })
}

/// What `cargo xtask measure` passes on: `measure ROUNDS FILE`, or `measure SIZES FILE` for growth alone.
#[derive(Debug)]
struct Arguments {
    what: Wanted,
    /// Where the single values go.
    file: PathBuf,
}

#[derive(Debug)]
enum Wanted {
    Everything {
        /// Rounds of everything that is compared.
        rounds: u32,
    },
    /// As JSON.
    Growth(Sizes),
}

impl Arguments {
    fn given() -> Result<Self> {
        let mut words = env::args_os().skip(1);
        let (Some(what), Some(file), None) = (words.next(), words.next(), words.next()) else {
            bail!("use `cargo xtask measure`: this takes the number of rounds and a file");
        };
        let what = what.to_str().context("neither a number of rounds nor sizes")?;
        let what = match what.parse() {
            Ok(rounds) => Wanted::Everything { rounds },
            Err(_) => Wanted::Growth(serde_json::from_str(what).with_context(|| {
                format!("`{what}` is neither a number of rounds nor sizes to grow to")
            })?),
        };
        Ok(Self { what, file: file.into() })
    }
}

/// Says on the standard error what is under way.
fn say(what: &str) {
    eprintln!("measure: {what}");
}
