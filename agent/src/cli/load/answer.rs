//! How a run is told.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use agent_api::SCHEMA;
use agent_load::{Class, ClassSummary, FailureKind, Latency, Summary};
use serde::Serialize;

use super::verdict::{Overload, Verdict};
use crate::cli::{
    arguments::ProtocolChoice,
    output::{Answer, Look, Paint},
    table::{Side, Table},
    words,
};

/// What became of a run. Latencies are in microseconds, and count from the time at which a request was due.
#[derive(Clone, Debug, Serialize)]
pub struct LoadAnswer {
    /// Version of these types.
    pub schema: u32,
    /// The server.
    pub target: SocketAddr,
    /// The language: `http`, `tcp` or `udp`.
    pub protocol: &'static str,
    /// For how long requests were begun.
    pub seconds: f64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// How it is judged.
    pub verdict: Verdict,
    /// Failures of all kinds, those of the generator itself included.
    pub failures: u64,
    /// What the generator could not do.
    pub overload: Overload,
    /// Answers by generation; those that tell none are not among them.
    pub generations: BTreeMap<u32, u64>,
    /// By client class.
    pub classes: BTreeMap<Class, ClassSummary>,
}

impl LoadAnswer {
    /// Judges a run.
    pub(super) fn new(
        target: SocketAddr,
        protocol: ProtocolChoice,
        lasted: Duration,
        interrupted: bool,
        summary: Summary,
    ) -> Self {
        let overload = Overload::of(&summary);
        Self {
            schema: SCHEMA,
            target,
            protocol: match protocol {
                ProtocolChoice::Http => "http",
                ProtocolChoice::Tcp => "tcp",
                ProtocolChoice::Udp => "udp",
            },
            seconds: lasted.as_secs_f64(),
            interrupted,
            verdict: Verdict::of(&summary, &overload),
            failures: summary.failures(),
            overload,
            generations: summary.generations(),
            classes: summary.classes,
        }
    }

    fn per_class(&self, colour: bool) -> String {
        let right = |name| (name, Side::Right);
        let columns = ["DUE", "ANSWERS", "PER SECOND", "FAILURES"].map(right);
        let columns = [&[("CLIENTS", Side::Left)][..], &columns].concat();
        let mut table = Table::new(&columns);
        for (class, seen) in &self.classes {
            let failures: u64 = seen.failures.values().map(|failures| failures.count).sum();
            let cells = [
                class.to_string(),
                (seen.begun + seen.unbegun).to_string(),
                seen.answers.to_string(),
                format!("{:.1}", seen.answers as f64 / self.seconds),
                failures.to_string(),
            ];
            table.row(cells, (failures > 0).then_some(Paint::Error));
        }
        table.render(colour)
    }

    fn latencies(&self, colour: bool) -> String {
        let columns = ["P50", "P90", "P99", "P99.9", "MAX"].map(|name| (name, Side::Right));
        let mut table = Table::new(&[&[("MILLISECONDS", Side::Left)][..], &columns].concat());
        for (class, seen) in &self.classes {
            for (name, latency) in [("connect", seen.connect), ("answer", seen.answer)] {
                let Latency { count, p50_us, p90_us, p99_us, p999_us, max_us } = latency;
                if count > 0 {
                    let times = [p50_us, p90_us, p99_us, p999_us, max_us].map(milliseconds);
                    let name = format!("{class}: {name}");
                    table.row(std::iter::once(name).chain(times), None);
                }
            }
        }
        table.render(colour)
    }

    fn each_failure(&self) -> impl Iterator<Item = String> {
        self.classes.iter().flat_map(|(class, seen)| {
            seen.failures.iter().map(move |(kind, failures)| {
                let first = words::line(&failures.first);
                format!("{class}: {} {}, first: {first}\n", failures.count, said(*kind))
            })
        })
    }

    fn answered_by(&self) -> Option<String> {
        let by = |(number, count): (&u32, &u64)| {
            format!("{number}: {}", words::count(*count, "answer", "answers"))
        };
        let all: Vec<String> = self.generations.iter().map(by).collect();
        (!all.is_empty()).then(|| format!("generation {}\n", all.join(", ")))
    }

    fn conclusion(&self) -> String {
        let after = if self.interrupted { "interrupted after" } else { "after" };
        let judged = match self.verdict {
            Verdict::Passed => "no failures",
            Verdict::Failed => "failed",
            Verdict::Overloaded => "no success: the load generator was overloaded",
            Verdict::Unanswered => "no success: nothing was answered",
        };
        format!("{judged}, {after} {}\n", words::span(Duration::from_secs_f64(self.seconds)))
    }
}

impl Answer for LoadAnswer {
    fn text(&self, look: Look) -> String {
        let mut text = self.per_class(look.colour);
        text.push_str(&self.latencies(look.colour));
        text.extend(self.answered_by());
        text.extend(self.each_failure());
        for lack in self.overload.told() {
            text.push_str(&format!("{} {lack}\n", Paint::Warning.on("overload:", look.colour)));
        }
        let paint = match self.verdict {
            Verdict::Passed => Paint::Serving,
            Verdict::Failed => Paint::Error,
            Verdict::Overloaded | Verdict::Unanswered => Paint::Warning,
        };
        text.push_str(&paint.on(self.conclusion().trim_end(), look.colour));
        text.push('\n');
        text
    }
}

impl Overload {
    /// What was lacking, a line each.
    fn told(&self) -> Vec<String> {
        let Self { rate_missed, late, unbegun, due, latest_us, .. } = *self;
        let mut lines = Vec::new();
        if rate_missed {
            let latest = milliseconds(latest_us);
            lines.push(format!(
                "the rate was not kept: of {due} requests {late} were begun over 10 ms late, the latest after {latest} ms, \
                 and {unbegun} never; the latencies include this"
            ));
        }
        for (count, what, fix) in [
            (self.out_of_ports, "ports", "`--source spread` has more towards 127.0.0.0/8"),
            (self.out_of_descriptors, "descriptors", "raise the limit of open files"),
            (self.out_of_memory, "memory for sockets", "use fewer connections"),
        ] {
            if count > 0 {
                lines.push(format!("ran out of {what}, {count} times: {fix}"));
            }
        }
        lines
    }
}

/// How it goes, on one line.
pub(super) fn moment(now: &Summary, since: Duration, answers: u64) -> String {
    let slowest = now.classes.values().map(|class| class.answer.p99_us).max().unwrap_or_default();
    let overload = Overload::of(now);
    let late = if overload.rate_missed {
        format!(" · {} late: overloaded", overload.late)
    } else {
        String::new()
    };
    format!(
        "{} · {answers} answers in the last second · {} · p99 {} ms{late}",
        words::span(Duration::from_secs(since.as_secs_f64().round() as u64)),
        words::count(now.failures(), "failure", "failures"),
        milliseconds(slowest),
    )
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

fn said(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Refused => "refused",
        FailureKind::Unreachable => "unreachable",
        FailureKind::ResetBeforeAccept => "reset before the handshake was done",
        FailureKind::ResetBeforeFirstByte => "reset before the first byte of the answer",
        FailureKind::EofBeforeFirstByte => "closed before the first byte of the answer",
        FailureKind::CutInTheMiddle => "cut in the middle",
        FailureKind::TimedOut => "timed out",
        FailureKind::WrongAnswer => "answered wrongly",
        FailureKind::WrongGeneration => "answered by a wrong generation",
        FailureKind::Moved => "moved to another generation on one connection",
        FailureKind::Slow => "connected as slowly as after a lost SYN",
        FailureKind::Local => "failures of the load generator itself",
    }
}

#[cfg(test)]
mod tests {
    use agent_load::{Failures, Shortage};

    use super::*;
    use crate::cli::samples::BLACK;

    fn latency(p50_us: u64) -> Latency {
        let [p90_us, p99_us, p999_us, max_us] = [2, 3, 4, 5_000].map(|factor| p50_us * factor);
        Latency { count: 9_990, p50_us, p90_us, p99_us, p999_us, max_us }
    }

    fn load(class: ClassSummary) -> LoadAnswer {
        let summary =
            Summary { elapsed: Duration::from_secs(11), classes: [(Class::OneShot, class)].into() };
        let target = ([127, 0, 0, 1], 8080).into();
        LoadAnswer::new(target, ProtocolChoice::Http, Duration::from_secs(10), false, summary)
    }

    fn clean() -> ClassSummary {
        ClassSummary {
            connections: 9_990,
            begun: 9_990,
            requests: 9_990,
            answers: 9_990,
            generations: [(1, 4_000), (2, 5_990)].into(),
            lateness: latency(1),
            connect: latency(60),
            handshake: latency(50),
            answer: latency(120),
            ..ClassSummary::default()
        }
    }

    #[test]
    fn a_clean_run_is_told_and_its_json_is_stable() {
        insta::assert_snapshot!(load(clean()).text(BLACK));
        insta::assert_json_snapshot!(load(clean()));
    }

    #[test]
    fn failures_and_overload_are_told() {
        let failures = |count: u64, first: &str| Failures { count, first: first.to_owned() };
        let class = ClassSummary {
            late: 400,
            unbegun: 10,
            failures: [
                (FailureKind::Refused, failures(3, "connect: refused\x1b[2J (after 1.0s)")),
                (FailureKind::Local, failures(7, "connect: no address (after 2.0s)")),
            ]
            .into(),
            shortages: [(Shortage::Ports, 7)].into(),
            ..clean()
        };
        insta::assert_snapshot!(load(class.clone()).text(BLACK));
        insta::assert_json_snapshot!(load(class));
    }

    #[test]
    fn a_moment_is_one_line() {
        let summary = Summary { classes: [(Class::OneShot, clean())].into(), ..Summary::default() };
        let line = moment(&summary, Duration::from_millis(3_010), 500);
        assert_eq!(line, "3 s · 500 answers in the last second · 0 failures · p99 0.360 ms");
    }
}
