//! The time of one decision of `steer`, in a measure that is much the same on every machine.
//!
//! The kernel counts no instructions that a program executes, and virtual machines mostly have no counter for them. What a
//! decision costs is its lookups in maps, so one of those is the unit: `(run - nothing) / lookup`, where `nothing` is a
//! program that only returns, and `lookup` an eighth of what a program takes beyond that for eight lookups in a hash map
//! with a key of four bytes. All are run by the kernel itself in turns (`BPF_PROG_TEST_RUN`), and of each the
//! fastest turn counts, since whatever else runs can only make it slower. One lookup more, or a division, shows.

use agent_ebpf::steering::{FULL_SHARE, Steering};
use anyhow::Result;
use tests::lookup::steered::{PORT, Steered, cookie, listener};
use tests::lookup::yardsticks::{Yardstick, Yardsticks};

use crate::limits::{self, Cost};

const TURNS: u32 = 25;
const RUNS: u32 = 100_000;

/// What a lookup of this port costs, in lookups of a hash map.
fn cost(steered: &Steered, yardsticks: &Yardsticks, port: u16) -> Result<f64> {
    let [mut nothing, mut eight, mut run] = [u32::MAX; 3];
    for _ in 0..TURNS {
        nothing = nothing.min(yardsticks.run(Yardstick::Nothing, RUNS)?);
        eight = eight.min(yardsticks.run(Yardstick::EightLookups, RUNS)?);
        run = run.min(steered.look_up(port, RUNS)?.nanoseconds);
    }
    eprintln!("{run} ns; nothing takes {nothing} ns, eight lookups {eight} ns");
    let net = |nanoseconds: u32| f64::from(nanoseconds) - f64::from(nothing);
    Ok(net(run) / (net(eight) / 8.0))
}

#[test]
fn a_decision_costs_no_more_lookups_than_it_did() -> Result<()> {
    let mut steered = Steered::new()?;
    let yardsticks = Yardsticks::load()?;
    let (first, second) = (listener()?, listener()?);
    steered.adopt(1, &[&first])?;
    steered.adopt(2, &[&second])?;
    let mut standbys = [0; agent_ebpf::steering::MAX_STANDBYS];
    standbys[0] = 2;
    let steering = Steering { primary: 1, standbys, ..Steering::default() };
    steered.steer(&steering)?;
    let mut costs = Vec::new();

    assert_eq!(steered.look_up(PORT, 1)?.listener, cookie(&first)?);
    let hit = cost(&steered, &yardsticks, PORT)?;
    costs.push(Cost::new("hash lookups for a connection", hit, limits::HIT));

    assert_eq!(steered.look_up(PORT + 1, 1)?.listener, 0);
    let miss = cost(&steered, &yardsticks, PORT + 1)?;
    costs.push(Cost::new("hash lookups for a port that is not ours", miss, limits::MISS));

    steered.steer(&Steering { candidate: 2, share: FULL_SHARE, ..steering })?;
    assert_eq!(steered.look_up(PORT, 1)?.listener, cookie(&second)?);
    let candidate = cost(&steered, &yardsticks, PORT)?;
    costs.push(Cost::new("hash lookups for a candidate", candidate, limits::CANDIDATE));

    steered.steer(&steering)?;
    drop(first);
    assert_eq!(steered.look_up(PORT, 1)?.listener, cookie(&second)?);
    let fallback = cost(&steered, &yardsticks, PORT)?;
    costs.push(Cost::new("hash lookups for a fallback", fallback, limits::FALLBACK));

    limits::hold(&costs)
}
