//! What a contender takes of the speed of its server while nothing is upgraded.

use anyhow::Result;
use std::time::Duration;

use super::arena::Arena;
use super::results::Steady;
use crate::measure::closed_loop::{self, Between};
use crate::measure::cores::Cores;

/// Slices that take turns, in another order each round: the machine's speed changes more than what is looked for.
pub(super) fn compare(
    alone: &Arena,
    contender: &Arena,
    cores: &Cores,
    round: u32,
) -> Result<Steady> {
    // The first slices of a server are unlike all others: nothing is in any cache.
    for arena in [alone, contender] {
        slice(arena, cores, Between::Reconnect, SLICE / 5)?;
    }
    let pair = |between| {
        let mut both = [(0, alone), (1, contender)];
        if round.is_multiple_of(2) {
            both.reverse();
        }
        let mut answers = [0.0; 2];
        for (place, arena) in both {
            answers[place] = slice(arena, cores, between, SLICE)?.round();
        }
        Ok::<_, anyhow::Error>(answers)
    };
    Ok(Steady { new: pair(Between::Reconnect)?, kept: pair(Between::Keep)? })
}

fn slice(arena: &Arena, cores: &Cores, between: Between, duration: Duration) -> Result<f64> {
    let run = || closed_loop::run(cores, Arena::address(), between, duration);
    Ok(arena.stage.namespace.enter(run)?.per_second())
}

const SLICE: Duration = Duration::from_millis(700);
