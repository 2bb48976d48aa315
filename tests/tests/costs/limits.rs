//! What everything may cost: the recorded limits, each with room over what was measured when it was recorded.
//!
//! A change that makes something dearer for a good reason raises its limit here, in the same commit.

use std::fmt::Display;

use anyhow::{Result, ensure};

/// One value and its limit.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) most: f64,
}

impl Cost {
    pub(crate) fn new(what: impl Display, measured: f64, most: f64) -> Self {
        Self { what: what.to_string(), measured, most }
    }
}

/// Says what was measured, and fails with everything that is over its limit.
pub(crate) fn hold(costs: &[Cost]) -> Result<()> {
    let mut over = Vec::new();
    for Cost { what, measured, most } in costs {
        eprintln!("{what}: {measured:.2} of at most {most}");
        if measured > most {
            let percent = (measured / most - 1.0) * 100.0;
            over.push(format!("{what}: {measured:.2}, {percent:.0} % over the limit of {most}"));
        }
    }
    let over = over.join("\n");
    ensure!(over.is_empty(), "this grew over its limit in tests/tests/costs/limits.rs:\n{over}");
    Ok(())
}

/// Instructions that the verifier looked at, on all paths, and bytes of the program that it left.
pub(crate) const PROGRAMS: [(&str, f64, f64); 15] = [
    ("adopt_flow", 580.0, 3_500.0),
    // Whether a listener was made as what it is are two paths; it was 350 before that was asked.
    ("adopt_listeners", 520.0, 2_100.0),
    // Each depth of a PID namespace is a path; these count the members of each service.
    ("enlist", 650.0, 2_700.0),
    ("follow_exit", 75.0, 550.0),
    ("follow_fork", 620.0, 2_400.0),
    // Four numbers of each process, and each depth of a PID namespace is a path.
    ("list_processes", 11_000.0, 6_000.0),
    ("list_sockets", 1_020.0, 1_700.0),
    // Each of ten generations is a path, and the kernel's loop over its listeners one more.
    ("migrate", 29_000.0, 11_500.0),
    ("public_port4", 20.0, 210.0),
    ("public_port6", 20.0, 210.0),
    ("refuse_multipath", 10.0, 65.0),
    ("share_bind4", 4_400.0, 7_700.0),
    ("share_bind6", 4_400.0, 7_700.0),
    ("steer", 19_500.0, 11_000.0),
    ("track_flows", 460.0, 2_900.0),
];

/// Net times of `steer`, in hash lookups.
pub(crate) const HIT: f64 = 4.3;
pub(crate) const MISS: f64 = 1.5;
pub(crate) const CANDIDATE: f64 = 5.8;
pub(crate) const FALLBACK: f64 = 9.2;

/// System calls of all threads of the agent, without those that there are more of on a machine with more processes. Some 90 of them
/// ask which BPF programs confine the old generation's control group, and the one above the new one's.
pub(crate) const CALLS_PER_UPGRADE: f64 = 1_130.0;

/// How often the agent looks through as many descriptors as all processes have: it should look at its own generations only.
pub(crate) const WALKS_PER_UPGRADE: f64 = 0.5;

/// System calls of an attach by those of one with a tenth of the ports.
pub(crate) const TENFOLD: f64 = 5.0;

/// How often all flows of a service may be listed while two generations of it take turns four times: an agent that did it for
/// each look at a generation lists them five times.
pub(crate) const LISTS: f64 = 2.0;

/// Bytes in the kernel. A quarter of them is the table of processes, of which four services can have their whole share.
pub(crate) const ALL_MAPS: f64 = 4_200_000.0;
pub(crate) const MAPS_PER_CPU: f64 = 80_000.0;
pub(crate) const PER_ENDPOINT: f64 = 120.0;
pub(crate) const PER_SERVICE: f64 = 176.0;
pub(crate) const PER_GENERATION: f64 = 110.0;
pub(crate) const PER_FLOW: f64 = 16.0;

/// KiB of the agent's memory that are of no file.
pub(crate) const AGENT_MEMORY: f64 = 9_216.0;
