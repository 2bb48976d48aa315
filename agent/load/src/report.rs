//! What a run found: counts and latencies per client class, and every single answer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::failure::{FailureKind, Shortage};

/// A kind of client.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A new connection for each request.
    OneShot,
    /// A kept connection with a request now and then.
    KeepAlive,
    /// A large answer, read slowly.
    Stream,
    /// A request body, sent slowly.
    Upload,
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::OneShot => "one-shot",
            Self::KeepAlive => "keep-alive",
            Self::Stream => "stream",
            Self::Upload => "upload",
        })
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The class of the client.
    pub class: Class,
    /// The connection, numbered within the run.
    pub connection: u64,
    /// When the client began to connect.
    pub started: Instant,
    /// When the connection was there.
    pub connected: Instant,
    /// When the answer was complete.
    pub answered: Instant,
    /// The generation that gave it; a stream of unmarked content has none.
    pub generation: Option<u32>,
}

/// One failure, with what is known of its connection.
#[derive(Clone, Debug)]
pub struct Incident {
    /// The class of the client.
    pub class: Class,
    /// What went wrong.
    pub kind: FailureKind,
    /// What exactly.
    pub detail: String,
    /// When the client began to connect.
    pub started: Option<Instant>,
    /// The client's end of the connection, if there was one.
    pub client: Option<SocketAddr>,
    /// The generation that had answered on it before.
    pub generation: Option<u32>,
    /// When it was noticed.
    pub at: Instant,
}

/// The result of a whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The counts and latencies.
    #[serde(flatten)]
    pub summary: Summary,
    /// Every answer in the order of arrival, if the plan keeps them.
    #[serde(skip)]
    pub observations: Vec<Observation>,
    /// The first failures, one by one.
    #[serde(skip)]
    pub incidents: Vec<Incident>,
}

impl Report {
    /// The answers that an older generation than `oldest` gave to connections begun after `instant`.
    pub fn stale(&self, instant: Instant, oldest: u32) -> Vec<&Observation> {
        let stale = |seen: &&Observation| {
            seen.started > instant && seen.generation.is_some_and(|it| it < oldest)
        };
        self.observations.iter().filter(stale).collect()
    }

    /// When the first connection that `generation` answered was begun.
    pub fn first_of(&self, generation: u32) -> Option<Instant> {
        let of = self.observations.iter().filter(|seen| seen.generation == Some(generation));
        of.map(|seen| seen.started).min()
    }

    /// The longest handshake of a connection begun within `distance` of `instant`.
    pub fn longest_handshake_near(&self, instant: Instant, distance: Duration) -> Option<Duration> {
        let near = |seen: &&Observation| {
            let (early, late) = (seen.started.min(instant), seen.started.max(instant));
            late.duration_since(early) <= distance
        };
        self.observations
            .iter()
            .filter(near)
            .map(|seen| seen.connected.duration_since(seen.started))
            .max()
    }
}

/// Counts and latencies so far, or of a whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Since the start of the run.
    pub elapsed: Duration,
    /// By client class; only those that the plan has.
    pub classes: BTreeMap<Class, ClassSummary>,
}

impl Summary {
    /// The failures of all classes and kinds, those of the generator itself included.
    pub fn failures(&self) -> u64 {
        self.classes.values().flat_map(|class| class.failures.values()).map(|kind| kind.count).sum()
    }

    /// The failures of one kind in all classes.
    pub fn failures_of(&self, kind: FailureKind) -> u64 {
        self.classes
            .values()
            .filter_map(|class| class.failures.get(&kind))
            .map(|kind| kind.count)
            .sum()
    }

    /// The answers of all classes.
    pub fn answers(&self) -> u64 {
        self.classes.values().map(|class| class.answers).sum()
    }

    /// The answers of each generation in all classes.
    pub fn generations(&self) -> BTreeMap<u32, u64> {
        let mut sums = BTreeMap::new();
        for (generation, count) in self.classes.values().flat_map(|class| &class.generations) {
            *sums.entry(*generation).or_default() += count;
        }
        sums
    }

    /// One class's part; empty if the plan does not have it.
    pub fn class(&self, class: Class) -> ClassSummary {
        self.classes.get(&class).cloned().unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (class, seen) in &self.classes {
            writeln!(
                formatter,
                "{class}: {} connections, {} requests, {} answers {:?}, {} closed, {} late, {} never begun, handshake {}, answer {}",
                seen.connections,
                seen.requests,
                seen.answers,
                seen.generations,
                seen.closed,
                seen.late,
                seen.unbegun,
                seen.handshake,
                seen.answer
            )?;
            for (kind, failures) in &seen.failures {
                writeln!(formatter, "  {kind:?}: {}, first: {}", failures.count, failures.first)?;
            }
        }
        Ok(())
    }
}

/// One client class's counts and latencies.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClassSummary {
    /// Attempts to connect.
    pub connections: u64,
    /// Requests whose time had come and that were begun, even if the connection for it failed.
    pub begun: u64,
    /// Requests sent.
    pub requests: u64,
    /// Answers understood, among them those of a wrong generation.
    pub answers: u64,
    /// Connections that the server ended after announcing it: no failure.
    pub closed: u64,
    /// Requests of an open loop that the generator began more than 10 ms after their time.
    pub late: u64,
    /// Requests of an open loop whose time had come when the run ended, and that were never begun.
    pub unbegun: u64,
    /// By kind.
    pub failures: BTreeMap<FailureKind, Failures>,
    /// How often the generator itself ran out of something.
    pub shortages: BTreeMap<Shortage, u64>,
    /// Answers by generation.
    pub generations: BTreeMap<u32, u64>,
    /// From the time of a request to its begin: what the generator itself added to the latencies below.
    pub lateness: Latency,
    /// From the intended start to the connection, so that a late generator hides no waiting.
    pub connect: Latency,
    /// The handshake alone.
    pub handshake: Latency,
    /// From the intended start (of the request, on a kept connection) to the complete answer.
    pub answer: Latency,
}

/// Failures of one kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What the first one was.
    pub first: String,
}

/// A distribution of durations, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// The 90th percentile.
    pub p90_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The 99.9th percentile.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "p50 {} p99 {} max {} µs", self.p50_us, self.p99_us, self.max_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers by (milliseconds at which the connection was begun, those of its handshake, generation).
    fn report(begun: Instant, answers: &[(u64, u64, u32)]) -> Report {
        let observation = |(at, handshake, generation): &(u64, u64, u32)| {
            let started = begun + Duration::from_millis(*at);
            let connected = started + Duration::from_millis(*handshake);
            let generation = Some(*generation);
            let (class, connection) = (Class::OneShot, 0);
            Observation { class, connection, started, connected, answered: connected, generation }
        };
        let observations = answers.iter().map(observation).collect();
        Report { summary: Summary::default(), observations, incidents: Vec::new() }
    }

    #[test]
    fn an_answer_is_stale_by_when_its_connection_was_begun() {
        let begun = Instant::now();
        let report = report(begun, &[(10, 50, 1), (20, 1, 2), (30, 1, 1)]);
        let stale = report.stale(begun + Duration::from_millis(15), 2);
        let at: Vec<Duration> =
            stale.iter().map(|seen| seen.started.duration_since(begun)).collect();
        assert_eq!(at, [Duration::from_millis(30)]);
        assert_eq!(report.first_of(2), Some(begun + Duration::from_millis(20)));
        assert_eq!(report.first_of(3), None);
    }

    #[test]
    fn only_handshakes_near_an_instant_are_looked_at() {
        let begun = Instant::now();
        let report = report(begun, &[(0, 9, 1), (100, 3, 1), (140, 5, 1), (300, 7, 1)]);
        let (switch, near) = (begun + Duration::from_millis(120), Duration::from_millis(50));
        assert_eq!(report.longest_handshake_near(switch, near), Some(Duration::from_millis(5)));
        assert_eq!(report.longest_handshake_near(begun + Duration::from_secs(9), near), None);
    }
}
