//! The agent's own memory.

use std::fs;

use anyhow::{Context as _, Result};
use tests::servers::Node;
use tests::stage::Stage;

use crate::limits::{self, Cost};

const PORT: u16 = 8080;

/// Memory of the process that is of no file, in KiB.
fn anonymous(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    Ok(line.context("RssAnon")?.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn the_agent_keeps_no_memory_that_only_its_start_needed() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &[])?;
    stage.until_steady(PORT)?;
    let daemon = stage.agent.daemon().context("the agent runs")?;
    let kept = anonymous(daemon.pid())?;
    limits::hold(&[Cost::new("KiB resident", kept as f64, limits::AGENT_MEMORY)])
}

/// What the C library reserves for a thread that allocates beside another one: so much, at a multiple of that.
const ARENA: u64 = 64 << 20;

/// How many of them a process has: the part that is not used yet cannot be accessed, and ends with it.
fn arenas(pid: i32) -> Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let reserved = maps.lines().filter_map(|line| line.split_once(" ---p "));
    let range = |range: &str| {
        let (from, to) = range.split_once('-').context("a range")?;
        Ok((u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?))
    };
    let ranges = reserved.map(|(it, _)| range(it)).collect::<Result<Vec<_>>>()?;
    let is_arena = |(from, to): &&(u64, u64)| to % ARENA == 0 && to - from > ARENA / 2;
    Ok(ranges.iter().filter(is_arena).count())
}

#[test]
fn the_threads_of_the_agent_allocate_in_one_place() -> Result<()> {
    let server = Node::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    stage.switch(&server, 2, &[])?;
    let daemon = stage.agent.daemon().context("the agent runs")?;
    assert_eq!(arenas(daemon.pid())?, 0);
    Ok(())
}
