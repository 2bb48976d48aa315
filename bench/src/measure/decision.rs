//! The time of one decision of `steer` by itself, without a packet and with its maps in the caches.

use agent_ebpf::steering::Steering;
use anyhow::{Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::sample::{Sample, Unit};
use super::say;
use tests::lookup::steered::{PORT, Steered, cookie, listener};
use tests::lookup::yardsticks::{Yardstick, Yardsticks};

/// Means of many runs each, by the kernel's own count (`BPF_PROG_TEST_RUN`), which costs nothing within them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Decision {
    /// For a port that is attached.
    pub(super) attached: Sample,
    /// For one that is not.
    pub(super) other: Sample,
    /// Of a program that only returns: the floor of what can be measured so.
    pub(super) nothing: Sample,
}

/// In a namespace and on a thread of its own.
pub(super) fn measure(rounds: u32) -> Result<Decision> {
    say("one decision of the kernel's program");
    let run = || take_turns(rounds);
    std::thread::scope(|scope| scope.spawn(run).join()).map_err(|_panic| anyhow!("panic"))?
}

fn take_turns(rounds: u32) -> Result<Decision> {
    let (mut steered, yardsticks) = (Steered::new()?, Yardsticks::load()?);
    let listener = listener()?;
    steered.adopt(1, &[&listener])?;
    steered.steer(&Steering { primary: 1, ..Steering::default() })?;
    ensure!(steered.look_up(PORT, 1)?.listener == cookie(&listener)?, "it is not steered");
    let [mut attached, mut other, mut nothing] = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        attached.push(steered.look_up(PORT, RUNS)?.nanoseconds.into());
        other.push(steered.look_up(PORT + 1, RUNS)?.nanoseconds.into());
        nothing.push(yardsticks.run(Yardstick::Nothing, RUNS)?.into());
    }
    let sample = |values| Sample::of(Unit::Nanoseconds, values);
    Ok(Decision { attached: sample(attached)?, other: sample(other)?, nothing: sample(nothing)? })
}

const RUNS: u32 = 1_000_000;
