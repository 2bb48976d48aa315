//! What a contender takes of the speed of its server while nothing is upgraded.

use anyhow::Result;
use std::time::Duration;

use super::arena::{Arena, Verb};
use super::contender::Contender;
use super::results::Steady;
use crate::measure::closed_loop::{self, Between};
use crate::measure::cores::Cores;

/// Compares it with the same server alone, by slices that take turns, in another order each round: the machine's speed
/// changes more than what is looked for. Nothing if the server does not speak HTTP: these clients speak nothing else.
pub(super) fn compare(
    contender: &Contender,
    arena: &Arena,
    cores: &Cores,
    round: u32,
) -> Result<Option<Steady>> {
    if contender.protocol != "http" {
        return Ok(None);
    }
    let alone = Arena::open(contender, Verb::Alone, cores)?;
    // The first slices of a server are unlike all others: nothing is in any cache.
    for arena in [&alone, arena] {
        slice(arena, cores, Between::Reconnect, SLICE / 5)?;
    }
    let pair = |between| {
        let mut both = [(0, &alone), (1, arena)];
        if round.is_multiple_of(2) {
            both.reverse();
        }
        let mut answers = [0.0; 2];
        for (place, arena) in both {
            answers[place] = slice(arena, cores, between, SLICE)?.round();
        }
        Ok::<_, anyhow::Error>(answers)
    };
    let new = pair(Between::Reconnect)?;
    let keeps = contender.clients.iter().any(|class| class == "keep-alive");
    let kept = keeps.then(|| pair(Between::Keep)).transpose()?;
    Ok(Some(Steady { new, kept }))
}

fn slice(arena: &Arena, cores: &Cores, between: Between, duration: Duration) -> Result<f64> {
    let run = || closed_loop::run(cores, Arena::address(), between, duration);
    Ok(arena.stage.namespace.enter(run)?.per_second())
}

const SLICE: Duration = Duration::from_millis(700);
