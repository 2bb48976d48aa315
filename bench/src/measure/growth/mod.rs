//! What happens to all this with many flows, many ports, and many generations.
//!
//! - `flows`, `endpoints`, `generations`: one kind of growth each, in a namespace with an agent of its own
//! - `ground`: what they have in common
//! - `server`: nginx of any size
//! - `held`: clients that hold connections
//! - `series`, `tables`: the values at each size, and how they are shown
//!
//! Sizes take turns. It fails if the agent's counts are not those of the kernel, to a flow.

mod endpoints;
mod flows;
mod generations;
mod ground;
mod held;
mod series;
mod server;
mod tables;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use self::ground::{Ground, Tools};
pub(crate) use self::held::hold;
pub(super) use self::series::{Series, What};
use super::memory;
use crate::interrupt::Interrupt;
use crate::measure::cores::Cores;

/// How far to grow, and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sizes {
    pub(super) cycles: u32,
    pub(super) flows: Vec<u32>,
    pub(super) endpoints: Vec<u32>,
    pub(super) generations: Vec<u32>,
}

/// All kinds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Growth {
    pub(super) flows: Series,
    pub(super) endpoints: Series,
    pub(super) generations: Series,
}

impl Sizes {
    /// For so many rounds of everything else. One round is a first look, in less than a minute.
    pub(super) fn for_rounds(rounds: u32) -> Self {
        let most = usize::from(rounds > 1);
        Self {
            cycles: rounds.div_ceil(5),
            flows: vec![1_000, 10_000, 100_000][..2 + most].to_vec(),
            endpoints: vec![1, 10, 100, 1_000][..3 + most].to_vec(),
            generations: vec![2, 8, 32][..2 + most].to_vec(),
        }
    }
}

/// Lets everything grow.
pub(super) fn measure(interrupt: &Interrupt, sizes: &Sizes) -> Result<Growth> {
    let tools = Tools { interrupt: interrupt.clone(), cores: Cores::find()?, holder: holder()? };
    let cycles = sizes.cycles;
    Ok(Growth {
        flows: flows::measure(&tools, cycles, &sizes.flows)?,
        endpoints: endpoints::measure(&tools, cycles, &sizes.endpoints)?,
        generations: generations::measure(&tools, cycles, &sizes.generations)?,
    })
}

/// In bytes.
#[derive(Clone, Copy, Debug)]
struct Occupied {
    /// Pages of the agent that are of no file.
    own: u64,
    /// All pinned maps.
    maps: u64,
    /// The state file.
    state: u64,
}

fn occupied(ground: &Ground) -> Result<Occupied> {
    let agent = &ground.stage.agent;
    let pid = agent.daemon().context("the agent does not run any more")?.pid();
    Ok(Occupied {
        own: memory::field(pid, "status", "RssAnon")?,
        maps: memory::maps(&agent.maps())?.values().sum(),
        state: agent.state_length()?,
    })
}

/// It is built beside this program.
fn holder() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("hold"))
}
