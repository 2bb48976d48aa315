//! How large the kernel programs are: what the verifier has to look at with each start, and what it leaves.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use tests::servers::Script;
use tests::stage::Stage;

use crate::limits::{self, Cost};

const PORT: u16 = 8080;

/// The numbers of the programs that a process holds.
fn held_by(pid: i32) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path())?;
        if text.contains("prog_type:")
            && let Some(number) = text.lines().find_map(|line| line.strip_prefix("prog_id:"))
        {
            numbers.push(number.trim().parse()?);
        }
    }
    Ok(numbers)
}

#[test]
fn the_kernel_programs_are_as_small_as_they_were() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let held = held_by(stage.agent.daemon().context("the agent runs")?.pid())?;
    let mut costs = Vec::new();
    for program in loaded_programs() {
        let program = program?;
        if !held.contains(&program.id()) {
            continue;
        }
        let name = program.name_as_str().context("a program without a name")?;
        // The kernel keeps 15 characters of a name.
        let limits = limits::PROGRAMS.iter().find(|(full, ..)| full.starts_with(name));
        let (name, verified, bytes) = limits.with_context(|| format!("no limit for {name}"))?;
        let count = program.verified_instruction_count().context("the kernel does not count")?;
        costs.push(Cost::new(format!("{name}, instructions verified"), count.into(), *verified));
        let size = program.size_translated().context("the kernel does not tell sizes")?;
        costs.push(Cost::new(format!("{name}, bytes"), size.into(), *bytes));
    }
    ensure!(costs.len() == 2 * limits::PROGRAMS.len(), "not all programs are held: {costs:#?}");
    limits::hold(&costs)
}
