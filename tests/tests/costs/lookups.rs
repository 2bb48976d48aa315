//! The time of one decision of `steer`, in a measure that is much the same on every machine.
//!
//! The kernel counts no instructions that a program executes, and virtual machines mostly have no counter for them. What a
//! decision costs is its lookups in maps, so one of those is the unit: `(run - nothing) / lookup`, where `nothing` is a
//! program that only returns, and `lookup` an eighth of what a program takes beyond that for eight lookups in a hash map
//! with a key of four bytes. All are run by the kernel itself in turns (`BPF_PROG_TEST_RUN`), and of each the
//! fastest turn counts, since whatever else runs can only make it slower. One lookup more, or a division, shows.

use std::fs;

use agent_ebpf::steering::{FULL_SHARE, Steering};
use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::HashMap;
use aya::programs::SkLookup;
use tests::lookup::steered::{PORT, Steered, cookie, listener, lookup};

use crate::limits::{self, Cost};

/// Where `cargo xtask build` puts it.
pub(crate) const YARDSTICKS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/yardsticks.o");

const TURNS: u32 = 25;
const RUNS: u32 = 100_000;

/// Programs to compare with.
struct Yardsticks {
    ebpf: Ebpf,
}

impl Yardsticks {
    fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(&fs::read(YARDSTICKS)?)?;
        let table = ebpf.map_mut("TABLE").context("the table")?;
        HashMap::<_, u32, u64>::try_from(table)?.insert(1, 1, 0)?;
        for name in ["nothing", "eight_lookups"] {
            let program = ebpf.program_mut(name).with_context(|| name.to_owned())?;
            <&mut SkLookup>::try_from(program)?.load()?;
        }
        Ok(Self { ebpf })
    }

    fn run(&self, name: &str) -> Result<u32> {
        let program: &SkLookup = self.ebpf.program(name).context("a yardstick")?.try_into()?;
        Ok(lookup(PORT).run(program.fd()?, RUNS)?.nanoseconds)
    }
}

/// What a lookup of this port costs, in lookups of a hash map.
fn cost(steered: &Steered, yardsticks: &Yardsticks, port: u16) -> Result<f64> {
    let [mut nothing, mut eight, mut run] = [u32::MAX; 3];
    for _ in 0..TURNS {
        nothing = nothing.min(yardsticks.run("nothing")?);
        eight = eight.min(yardsticks.run("eight_lookups")?);
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
