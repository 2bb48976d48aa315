//! What is noted of a run, and how the notes of its threads become one.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::plan::Plan;
use super::report::{Class, ClassSummary, Incident, Latency, Observation};

/// All that one thread has seen.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) classes: BTreeMap<Class, ClassNotes>,
    pub(super) observations: Vec<Observation>,
    pub(super) incidents: Vec<Incident>,
}

/// The counts of a class, whose latencies are filled in from the histograms when asked for.
#[derive(Debug)]
pub(super) struct ClassNotes {
    pub(super) counts: ClassSummary,
    pub(super) lateness: Histogram<u64>,
    pub(super) connect: Histogram<u64>,
    pub(super) handshake: Histogram<u64>,
    pub(super) answer: Histogram<u64>,
}

impl Notes {
    /// Nothing yet, of the classes that a plan has.
    pub(super) fn new(plan: &Plan) -> Self {
        let classes = [
            (Class::OneShot, plan.one_shot.is_some()),
            (Class::KeepAlive, plan.keep_alive.is_some()),
            (Class::Stream, plan.stream.is_some()),
            (Class::Upload, plan.upload.is_some()),
        ];
        let planned = classes.into_iter().filter(|(_, planned)| *planned);
        let classes = planned.map(|(class, _)| (class, ClassNotes::default())).collect();
        Self { classes, ..Self::default() }
    }

    /// Adds the counts and latencies of another thread.
    pub(super) fn add(&mut self, other: &Self) {
        for (class, notes) in &other.classes {
            self.classes.entry(*class).or_default().add(notes);
        }
    }

    pub(super) fn summaries(&self) -> BTreeMap<Class, ClassSummary> {
        self.classes.iter().map(|(class, notes)| (*class, notes.summary())).collect()
    }
}

impl Default for ClassNotes {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
                .expect("1 is below the constant upper bound")
        };
        Self {
            counts: ClassSummary::default(),
            lateness: histogram(),
            connect: histogram(),
            handshake: histogram(),
            answer: histogram(),
        }
    }
}

impl ClassNotes {
    fn add(&mut self, other: &Self) {
        let Self { counts, lateness, connect, handshake, answer } = self;
        counts.add(&other.counts);
        let histograms = [
            (lateness, &other.lateness),
            (connect, &other.connect),
            (handshake, &other.handshake),
            (answer, &other.answer),
        ];
        for (to, from) in histograms {
            to.add(from).expect("all histograms of a run have the same bounds");
        }
    }

    fn summary(&self) -> ClassSummary {
        ClassSummary {
            lateness: Latency::of(&self.lateness),
            connect: Latency::of(&self.connect),
            handshake: Latency::of(&self.handshake),
            answer: Latency::of(&self.answer),
            ..self.counts.clone()
        }
    }
}

impl ClassSummary {
    /// Adds the counts of another thread; latencies cannot be added.
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.begun += other.begun;
        self.requests += other.requests;
        self.answers += other.answers;
        self.closed += other.closed;
        self.late += other.late;
        self.unbegun += other.unbegun;
        for (kind, failures) in &other.failures {
            let all = self.failures.entry(*kind).or_default();
            if all.count == 0 {
                all.first.clone_from(&failures.first);
            }
            all.count += failures.count;
        }
        for (shortage, count) in &other.shortages {
            *self.shortages.entry(*shortage).or_default() += count;
        }
        for (generation, count) in &other.generations {
            *self.generations.entry(*generation).or_default() += count;
        }
    }
}

/// Adds a duration; one beyond the bounds as the longest.
pub(super) fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(LONGEST_MICROS));
}

/// An hour: longer than any request of a bounded run.
const LONGEST_MICROS: u64 = 3_600_000_000;
