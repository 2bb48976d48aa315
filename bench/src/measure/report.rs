//! All numbers of a run, and the table of them.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::attach::Attach;
use super::closed_loop::CLIENTS;
use super::decision::Decision;
use super::growth::Growth;
use super::idle::Idle;
use super::memory::Memory;
use super::sample::{Sample, Unit, grouped};
use super::steady::Steady;
use super::steering::Steering;
use super::switch::Switch;
use crate::machine::Machine;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(super) machine: Machine,
    pub(super) rounds: u32,
    pub(super) attach: Attach,
    pub(super) decision: Decision,
    pub(super) steering: Steering,
    pub(super) steady: Steady,
    pub(super) switch: Switch,
    pub(super) idle: Idle,
    pub(super) memory: Memory,
    pub(super) growth: Growth,
}

impl Report {
    /// As it is shown to people.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.heading();
        text.push_str("\n| measured | count | median | minimum | maximum |\n");
        text.push_str("| --- | ---: | ---: | ---: | ---: |\n");
        for (what, sample) in self.samples() {
            text.push_str(&row(&what, sample));
        }
        for (what, count, value) in self.single_values() {
            text.push_str(&single_row(&what, count, &value));
        }
        text.push_str(NOTES);
        text.push_str(&self.growth.markdown());
        text
    }

    /// Times at each size of what may grow, in milliseconds: shortest, median, longest.
    pub(crate) fn growth_in_time(&self) -> Vec<(String, [f64; 3])> {
        self.growth.in_time()
    }

    fn heading(&self) -> String {
        let Machine { kernel, cores, processor, server, agent, load, .. } = &self.machine;
        format!(
            "Measured on {} with agent {agent} (release build), Linux {kernel}, {cores} cores ({processor}), {server}; \
             loopback in a private network namespace; load average before the run {load:.2}.\n",
            self.machine.day()
        )
    }

    fn samples(&self) -> Vec<(String, &Sample)> {
        let Self { attach, decision, steering, steady, switch, idle, .. } = self;
        let batch = grouped(steering.connections_per_batch.into());
        let new = &steady.new_connections;
        let kept = &steady.kept_connections;
        let named: [(String, &Sample); 21] = [
            ("switch: `agent undo`, from its start to its exit".to_owned(), &switch.command),
            ("switch: the request alone, over the control socket".to_owned(), &switch.request),
            ("`attach`, agent running".to_owned(), &attach.attach),
            ("`detach`, agent running".to_owned(), &attach.detach),
            ("`attach`, with the start of the agent".to_owned(), &attach.first_attach),
            ("`detach`, with the end of the agent".to_owned(), &attach.last_detach),
            ("`steer` alone, attached port".to_owned(), &decision.attached),
            ("`steer` alone, another port".to_owned(), &decision.other),
            ("a program that does nothing, in the same way".to_owned(), &decision.nothing),
            (
                format!("`steer`, a connection to the attached port (mean of {batch})"),
                &steering.attached.steer,
            ),
            (
                format!("`steer`, a connection to another port (mean of {batch})"),
                &steering.other.steer,
            ),
            (
                "`track_flows`, a change of a socket's state, attached port".to_owned(),
                &steering.attached.track_flows,
            ),
            (
                "`track_flows`, a change of a socket's state, other port".to_owned(),
                &steering.other.track_flows,
            ),
            ("changes of state per connection, both ends".to_owned(), &steering.attached.changes),
            (format!("new connection per request, {CLIENTS} clients, not attached"), &new.direct),
            (format!("new connection per request, {CLIENTS} clients, attached"), &new.attached),
            ("**new connection per request: attached / not attached**".to_owned(), &new.ratio),
            (format!("kept connections, {CLIENTS} clients, not attached"), &kept.direct),
            (format!("kept connections, {CLIENTS} clients, attached"), &kept.attached),
            ("**kept connections: attached / not attached**".to_owned(), &kept.ratio),
            (
                "CPU of the agent for an upgrade, until the old generation is gone".to_owned(),
                &idle.upgrade_cpu,
            ),
        ];
        named.into()
    }

    fn single_values(&self) -> [(String, usize, String); 7] {
        let Self { attach, idle, memory, .. } = self;
        let times = attach.attach.count + attach.first_attach.count;
        [
            (
                format!(
                    "failures that clients saw during {times} `attach` and {times} `detach`, in {} answers on {} connections",
                    grouped(attach.answers),
                    grouped(attach.connections),
                ),
                2 * times,
                format!("{} failures", attach.failures),
            ),
            (
                format!("times that the agent was woken in {} s without a rollout", idle.seconds),
                1,
                grouped(idle.wakeups),
            ),
            (
                "CPU of the agent in that time".to_owned(),
                1,
                Unit::Milliseconds.show(idle.cpu_ms).to_string(),
            ),
            (
                "memory of the agent, resident (`VmRSS`)".to_owned(),
                1,
                mebibytes(memory.resident_bytes),
            ),
            (
                "of these its own pages, without files (`RssAnon`)".to_owned(),
                1,
                mebibytes(memory.own_bytes),
            ),
            (
                "memory of the agent, its part of shared pages (`Pss`)".to_owned(),
                1,
                mebibytes(memory.proportional_bytes),
            ),
            (
                format!("memory of the {} pinned maps", memory.map_bytes.len()),
                1,
                format!("{} bytes", grouped(memory.all_maps())),
            ),
        ]
    }
}

fn row(what: &str, sample: &Sample) -> String {
    let show = |value| sample.unit.show(value);
    let mut row = String::new();
    // Writing to a string cannot fail.
    let _: std::fmt::Result = writeln!(
        row,
        "| {what} | {} | {} | {} | {} |",
        sample.count,
        show(sample.median),
        show(sample.minimum),
        show(sample.maximum)
    );
    row
}

fn single_row(what: &str, count: usize, value: &str) -> String {
    format!("| {what} | {count} | {value} | | |\n")
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// How to read it.
const NOTES: &str = "
- Switches go to and fro between two generations that both have a client, each right after the one before: the request alone
  waits for the looks that follow a switch. What it takes when the agent is at rest is in the tables of growth.
- `steer` alone: means of 1,000,000 runs by the kernel itself (`BPF_PROG_TEST_RUN`), without a packet and with the maps in the
  caches.
- The other times of `steer` and `track_flows` are the kernel's own statistics (`run_time_ns` by `run_cnt`). The statistics add
  their own cost to each run, which is part of the number: it is an upper bound. `track_flows` sees the sockets of the whole
  machine.
- Attached and not attached are two ports of one nginx, in slices of 0.7 s that take turns; a ratio is that of the two slices
  of one round. Server and agent have one core, the clients another one.
- `attach` and `detach` ran while 200 new connections per second, 8 kept ones and 2 slow readers came and stayed.
";
