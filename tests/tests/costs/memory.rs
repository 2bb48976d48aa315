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
