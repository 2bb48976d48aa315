//! The workspace's own commands: `cargo xtask <command>`.
//!
//! Each command is one file. All of them begin with [`setup`], so that a machine with nothing but the pinned compiler
//! needs no instructions: what is missing is installed below `target/`, or by the system's package manager where a
//! server for the tests is missing, and named in one line each.

#![forbid(unsafe_code)]

mod api;
mod bench;
mod build;
mod check;
mod command;
mod demo;
mod fuzz;
mod install;
mod kernels;
mod layout;
mod measure;
mod program;
mod setup;
mod soak;
mod test;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    kernels::Row,
    layout::{Profile, Target},
};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace: what failed is nearly always another program, which has said why.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let root = layout::root();
    match command {
        Command::Setup { build_only: true } => setup::for_build(root),
        Command::Setup { build_only: false } => setup::for_tests(root),
        Command::Build { release, target } => build(root, release, target),
        Command::Check { fix } => {
            if fix {
                check::fix(root)?;
            }
            check::run(root)
        }
        Command::Api => api::run(root),
        Command::Test { only } => test::run(root, only.as_deref()),
        Command::Install { prefix, destdir } => install::run(root, &prefix, destdir.as_deref()),
        Command::Demo => demo::run(root),
        Command::Measure { rounds } => measure::run(root, rounds),
        Command::Bench { quick, rounds, again, only } => {
            bench::run(root, &bench::Choice { quick, rounds, again, only })
        }
        Command::Soak { minutes, seed } => soak::run(root, minutes, seed),
        Command::Fuzz { minutes, seed, target } => {
            fuzz::run(root, minutes, seed, target.as_deref())
        }
        Command::Kernels { quick: true, .. } => kernels::quick(root),
        Command::Kernels { quick: false, kernels } => kernels::run(root, &kernels),
    }
}

fn build(root: &Path, release: bool, target: Option<Target>) -> Result<()> {
    let Some(target) = target else {
        let profile = if release { Profile::Release } else { Profile::Dev };
        return build::run(root, profile).map(drop);
    };
    let built = build::for_target(root, target)?;
    println!("{}", built.agent.display());
    Ok(())
}

/// Sets up, builds, checks, documents, tests, shows, measures, compares, soaks, fuzzes and installs the upgrade agent, and tries it on
/// other kernels.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing for building and testing; every other command does this by itself
    Setup {
        /// Leave out the servers that only the tests need
        #[arg(long)]
        build_only: bool,
    },
    /// Build the eBPF programs, then the workspace
    Build {
        /// Build the workspace optimised; the programs always are
        #[arg(long)]
        release: bool,
        /// Build a static agent for this target instead, optimised and without symbols
        #[arg(long, value_enum, value_name = "TARGET", conflicts_with = "release")]
        target: Option<Target>,
    },
    /// Run every check and list all failures at the end
    Check {
        /// First format, and apply the fixes that clippy is sure of
        #[arg(long)]
        fix: bool,
    },
    /// Write the documents of the API anew, from its types, into `docs/api`
    Api,
    /// Build, check, and run all tests; the integration tests need root
    Test {
        /// Run only the tests with this in their name
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },
    /// Install the agent, its completions, its manual pages and its systemd units
    Install {
        /// Where the files will be used from
        #[arg(long, default_value = "/usr/local")]
        prefix: PathBuf,
        /// Folder to put in front of every path, to make a package
        #[arg(long, value_name = "D")]
        destdir: Option<PathBuf>,
    },
    /// Show an upgrade without a lost connection on this machine
    Demo,
    /// Measure what the agent costs, how fast it is and how that grows on this machine
    Measure {
        /// Rounds of everything that is compared; 1 grows less, too
        #[arg(long, value_name = "N", default_value_t = 15)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
        rounds: u32,
    },
    /// Compare what upgrades cost with other ways to make them, and measure the agent by itself, on this machine
    Bench {
        /// One round, into `target/bench`, in less than five minutes
        #[arg(long, conflicts_with_all = ["rounds", "again"])]
        quick: bool,
        /// Turns of each contender; the documentation is written from them
        #[arg(long, value_name = "N", default_value_t = 15)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
        rounds: u32,
        /// Write the documentation anew from the results that are there
        #[arg(long, conflicts_with = "rounds")]
        again: bool,
        /// Only these scripts of `bench/contenders`, into `target/bench`, and not the agent by itself
        #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "again")]
        only: Vec<String>,
    },
    /// Let the agent run under load on this machine, with versions that break and processes that are killed
    Soak {
        /// For how long
        #[arg(long, value_name = "N", default_value_t = 60)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        minutes: u32,
        /// Make the choices of another run again; it prints its seed
        #[arg(long, value_name = "NUMBER")]
        seed: Option<u64>,
    },
    /// Try what comes from outside in forms that nobody meant; the tests do so for a few seconds
    Fuzz {
        /// For how long, each target
        #[arg(long, value_name = "N", default_value_t = 10)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        minutes: u32,
        /// Try the inputs of another run again; it prints its seeds
        #[arg(long, value_name = "NUMBER")]
        seed: Option<u64>,
        /// Only this one; all of them otherwise, one after the other
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(fuzz::TARGETS.map(|(name, _)| name)))]
        target: Option<String>,
    },
    /// Try the agent on other kernels, each in a virtual machine that needs no hardware for it
    Kernels {
        /// Only the oldest one that is served, and the newest one
        #[arg(long, conflicts_with = "kernels")]
        quick: bool,
        /// Only these, as `trixie:6.12+rt`: a suite of Debian, a series, a configuration; all are written to `docs/kernels.md`
        #[arg(value_name = "KERNEL")]
        kernels: Vec<Row>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
