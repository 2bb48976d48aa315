//! What the agent costs and how fast it is, as numbers: what `cargo xtask measure` prints.
//!
//! - `bench`: the server, the agent and the namespace that are measured, and running a command against the clock
//! - `attach`: taking charge of a port and handing it back, under load
//! - `steering`: the time that the kernel spends in our programs
//! - `steady`: requests to a port that is attached against one that is not
//! - `switch`: putting the other generation back, again and again
//! - `memory`: what the agent and its maps occupy
//! - `closed_loop`, `control`: the clients
//! - `cores`: where what runs
//! - `sample`, `report`: the numbers, and how they are shown
//!
//! Everything is one run in one namespace, and what is compared takes turns: the machine's speed changes from minute to
//! minute more than what is looked for. It fails if a command fails, if one client sees a failure, and if connections were
//! not steered that should have been.

mod attach;
mod bench;
pub(crate) mod closed_loop;
mod control;
pub(crate) mod cores;
mod memory;
mod report;
mod sample;
mod steady;
mod steering;
mod switch;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::bench::Bench;
use self::report::Report;
pub(crate) use self::sample::grouped;
use crate::interrupt::Interrupt;
use crate::machine::Machine;

/// Measures everything, prints the table, and writes the single values to a file.
pub fn run() -> ExitCode {
    match Arguments::given().and_then(|arguments| measure(&arguments)) {
        Ok(report) => {
            print!("{}", report.markdown());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<Report> {
    let interrupt = Interrupt::listen()?;
    let rounds = arguments.rounds;
    let mut bench = Bench::set(interrupt)?;
    let report = Report {
        machine: Machine::with_cores(bench.cores.count())?,
        rounds,
        attach: attach::measure(&mut bench)?,
        steering: steering::measure(&bench, rounds)?,
        steady: steady::measure(&bench, rounds)?,
        switch: switch::measure(&bench)?,
        memory: memory::measure(&bench)?,
    };
    drop(bench);
    let json = serde_json::to_vec_pretty(&report)?;
    let file = &arguments.file;
    fs::write(file, json).with_context(|| format!("write `{}`", file.display()))?;
    Ok(report)
}

/// What `cargo xtask measure` passes on.
#[derive(Debug)]
struct Arguments {
    /// Rounds of everything that is compared.
    rounds: u32,
    /// Where the single values go.
    file: PathBuf,
}

impl Arguments {
    fn given() -> Result<Self> {
        let mut words = env::args_os().skip(1);
        let (Some(rounds), Some(file), None) = (words.next(), words.next(), words.next()) else {
            bail!("use `cargo xtask measure`: this takes the number of rounds and a file");
        };
        let rounds = rounds.to_str().and_then(|rounds| rounds.parse().ok());
        let rounds = rounds.context("the number of rounds is not a number")?;
        Ok(Self { rounds, file: file.into() })
    }
}

/// Says on the standard error what is under way.
fn say(what: &str) {
    eprintln!("measure: {what}");
}
