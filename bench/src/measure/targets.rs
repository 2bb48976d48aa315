//! What was meant to be reached, against what was measured.

use super::growth::{Series, What};
use super::report::{Report, mebibytes};
use super::sample::{Sample, grouped};

/// One aim.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its number: M1, M2, …
    pub(crate) number: u32,
    pub(crate) what: &'static str,
    pub(crate) wanted: &'static str,
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
}

/// How that compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    /// By how much.
    Missed(String),
    /// Nothing was aimed at, or it was not measured by this.
    Stated,
}

impl Verdict {
    /// Met if nothing was missed.
    pub(crate) fn of(misses: impl IntoIterator<Item = Option<String>>) -> Self {
        let misses: Vec<String> = misses.into_iter().flatten().collect();
        if misses.is_empty() { Self::Met } else { Self::Missed(misses.join("; ")) }
    }

    /// As people read it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Met => "met".to_owned(),
            Self::Missed(by) => format!("**missed** by {by}"),
            Self::Stated => "stated".to_owned(),
        }
    }
}

impl Report {
    /// All aims that are about the agent alone.
    pub(crate) fn targets(&self) -> Vec<Target> {
        vec![
            self.switch_target(),
            self.steady_target(),
            self.steer_target(),
            self.attach_target(),
            self.flows_target(),
            self.endpoints_target(),
            self.generations_target(),
            self.memory_target(),
            self.idle_target(),
        ]
    }

    fn switch_target(&self) -> Target {
        let Sample { median, maximum, .. } = self.switch.command;
        Target {
            number: 4,
            what: "from decision to switch",
            wanted: "`agent undo` < 10 ms",
            measured: format!(
                "median {median:.1} ms, longest of {} {maximum:.1} ms",
                self.switch.command.count
            ),
            verdict: Verdict::of([above("the median", median, 10.0, "ms")]),
        }
    }

    fn steady_target(&self) -> Target {
        let [kept, new] = [&self.steady.kept_connections, &self.steady.new_connections]
            .map(|comparison| comparison.ratio.median);
        Target {
            number: 5,
            what: "speed, attached / not attached",
            wanted: "≥ 0.99 on kept connections, ≥ 0.98 on new ones",
            measured: format!("{kept:.3} and {new:.3}"),
            verdict: Verdict::of([below("kept", kept, 0.99), below("new", new, 0.98)]),
        }
    }

    fn steer_target(&self) -> Target {
        let net = self.decision.attached.median - self.decision.nothing.median;
        let [attached, other] =
            [&self.steering.attached, &self.steering.other].map(|it| it.steer.median);
        Target {
            number: 6,
            what: "`steer`, per new connection, without the cost of measuring",
            wanted: "≤ 60 ns",
            measured: format!(
                "{net:.0} ns by itself, its maps in the caches; {attached:.0} ns in traffic with the cost of measuring, of which \
                 {other:.0} ns for a port that is not ours, too"
            ),
            verdict: Verdict::of([above("by itself", net, 60.0, "ns")]),
        }
    }

    fn attach_target(&self) -> Target {
        let attach = &self.attach;
        let times = attach.attach.count + attach.first_attach.count;
        Target {
            number: 7,
            what: "connections disturbed by `attach` and `detach` under load",
            wanted: "0 in 1,000 times",
            measured: format!(
                "{} of {}, in {times} times each",
                attach.failures,
                grouped(attach.connections)
            ),
            verdict: Verdict::of([
                (attach.failures > 0).then(|| format!("{} connections", attach.failures)),
                (times < 1_000).then(|| format!("{} times that were not tried", 1_000 - times)),
            ]),
        }
    }

    fn flows_target(&self) -> Target {
        let flows = &self.growth.flows;
        let status = median(flows, What::StatusCommand);
        Target {
            number: 8,
            what: "growth with flows",
            wanted: "switch flat (±20 %), `agent status` ≤ 5 ms, counts exact",
            measured: format!(
                "{}: switch {:.2} ms ({:.1} ms right after another one), {}; status {status:.1} ms; counts exact",
                range(flows, "flows"),
                median(flows, What::SwitchRequest),
                median(flows, What::SwitchAtOnce),
                times(flows, What::SwitchRequest),
            ),
            verdict: Verdict::of([
                not_flat("the switch", flows, What::SwitchRequest),
                not_flat("the one right after another", flows, What::SwitchAtOnce),
                above("status", status, 5.0, "ms"),
            ]),
        }
    }

    fn endpoints_target(&self) -> Target {
        let ports = &self.growth.endpoints;
        let of = |what| median(ports, what);
        Target {
            number: 9,
            what: "growth with ports",
            wanted: "`steer` flat (±20 %); attach and restore stated",
            measured: format!(
                "{}: `steer` {}; attach {:.0} ms, upgrade {:.0} ms, restore {:.0} ms, detach {:.0} ms",
                range(ports, "ports"),
                times(ports, What::Steer),
                of(What::Attach),
                of(What::Upgrade),
                of(What::Restore),
                of(What::Detach)
            ),
            verdict: Verdict::of([not_flat("`steer`", ports, What::Steer)]),
        }
    }

    fn generations_target(&self) -> Target {
        let generations = &self.growth.generations;
        Target {
            number: 10,
            what: "growth with generations alive",
            wanted: "flat (±20 %)",
            measured: format!(
                "{}: `steer` {}, switch {}, status {}",
                range(generations, "generations"),
                times(generations, What::Steer),
                times(generations, What::SwitchRequest),
                times(generations, What::StatusCommand)
            ),
            verdict: Verdict::of([
                not_flat("`steer`", generations, What::Steer),
                not_flat("the switch", generations, What::SwitchRequest),
                not_flat("status", generations, What::StatusCommand),
            ]),
        }
    }

    fn memory_target(&self) -> Target {
        let memory = &self.memory;
        let resident = memory.resident_bytes as f64 / 1e6;
        let tag = median(&self.growth.flows, What::FlowMemory);
        Target {
            number: 11,
            what: "memory",
            wanted: "agent < 15 MB resident; maps, per flow, per port stated",
            measured: format!(
                "{} resident; maps {}, the same for any number of ports; {tag:.0} bytes of the kernel for each flow; \
                 {:.0} bytes of the state file for each port",
                mebibytes(memory.resident_bytes),
                mebibytes(memory.all_maps()),
                slope(&self.growth.endpoints, What::StateFile)
            ),
            verdict: Verdict::of([above("the agent", resident, 15.0, "MB")]),
        }
    }

    fn idle_target(&self) -> Target {
        let idle = &self.idle;
        Target {
            number: 14,
            what: "processor",
            wanted: "for an upgrade: stated; without a rollout: woken 0 times a second",
            measured: format!(
                "{:.1} ms for an upgrade; woken {} times in {} s",
                idle.upgrade_cpu.median, idle.wakeups, idle.seconds
            ),
            verdict: Verdict::of([(idle.wakeups > 0).then(|| format!("{} times", idle.wakeups))]),
        }
    }
}

/// At the largest size.
fn median(series: &Series, what: What) -> f64 {
    series.largest(what).map_or(f64::NAN, |sample| sample.median)
}

fn range(series: &Series, of: &str) -> String {
    let size = |size: Option<&u32>| grouped(size.copied().unwrap_or_default().into());
    format!("{} to {} {of}", size(series.sizes.first()), size(series.sizes.last()))
}

fn times(series: &Series, what: What) -> String {
    format!("× {:.2}", series.growth(what).unwrap_or(f64::NAN))
}

/// What each one more takes.
fn slope(series: &Series, what: What) -> f64 {
    let ends = series.samples.get(&what).and_then(|samples| samples.first().zip(samples.last()));
    let sizes = series.sizes.first().zip(series.sizes.last());
    let (Some((first, last)), Some((small, large))) = (ends, sizes) else { return f64::NAN };
    (last.median - first.median) / f64::from(large - small)
}

/// What could not be measured is not met.
fn above(what: &str, value: f64, limit: f64, unit: &str) -> Option<String> {
    let excess = value - limit;
    (excess.is_nan() || excess > 0.0).then(|| format!("{excess:.1} {unit} ({what})"))
}

fn below(what: &str, value: f64, limit: f64) -> Option<String> {
    let lack = limit - value;
    (lack.is_nan() || lack > 0.0).then(|| format!("{lack:.3} ({what})"))
}

/// Less is no miss.
fn not_flat(name: &str, series: &Series, what: What) -> Option<String> {
    let excess = (series.growth(what).unwrap_or(f64::NAN) - 1.2) * 100.0;
    (excess.is_nan() || excess > 0.0).then(|| format!("{excess:.0} % ({name})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_its_limit_is_told_by_how_much() {
        assert_eq!(
            Verdict::of([above("it", 5.0, 5.0, "ms"), below("it", 0.99, 0.99)]),
            Verdict::Met
        );
        let missed = Verdict::of([above("it", 7.5, 5.0, "ms"), below("that", 0.5, 0.75)]);
        assert_eq!(missed.shown(), "**missed** by 2.5 ms (it); 0.250 (that)");
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        assert_ne!(Verdict::of([above("it", f64::NAN, 5.0, "ms")]), Verdict::Met);
    }
}
