//! Where the clients of a run write down what they see.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinError;

use super::failure::{Failure, FailureKind, Identity};
use super::plan::{Observations, Plan};
use super::report::{
    Class, ClassSummary, Failures, Incident, Latency, Observation, Report, Summary,
};

/// The notes of one run. The clients share one thread, so its lock is free but for an occasional snapshot.
#[derive(Debug)]
pub(super) struct Recorder {
    begun: Instant,
    keep: Observations,
    notes: Mutex<Notes>,
}

impl Recorder {
    pub(super) fn new(plan: &Plan) -> Self {
        let classes = [
            (Class::OneShot, plan.one_shot.is_some()),
            (Class::KeepAlive, plan.keep_alive.is_some()),
            (Class::Stream, plan.stream.is_some()),
            (Class::Upload, plan.upload.is_some()),
        ];
        let planned = classes.into_iter().filter(|(_, planned)| *planned);
        let classes = planned.map(|(class, _)| (class, ClassNotes::new())).collect();
        let notes = Notes { classes, observations: Vec::new(), incidents: Vec::new() };
        Self { begun: Instant::now(), keep: plan.observations, notes: Mutex::new(notes) }
    }

    pub(super) fn connecting(&self, class: Class) {
        self.with(class, |notes| notes.counts.connections += 1);
    }

    pub(super) fn connected(&self, class: Class, since_intended: Duration, handshake: Duration) {
        self.with(class, |notes| {
            record(&mut notes.connect, since_intended);
            record(&mut notes.handshake, handshake);
        });
    }

    pub(super) fn requested(&self, class: Class) {
        self.with(class, |notes| notes.counts.requests += 1);
    }

    pub(super) fn answered(&self, since_intended: Duration, observation: Observation) {
        let mut notes = self.lock();
        let class = notes.classes.entry(observation.class).or_insert_with(ClassNotes::new);
        class.counts.answers += 1;
        record(&mut class.answer, since_intended);
        if let Some(generation) = observation.generation {
            *class.counts.generations.entry(generation).or_default() += 1;
        }
        if self.keep == Observations::Keep {
            notes.observations.push(observation);
        }
    }

    pub(super) fn closed(&self, class: Class) {
        self.with(class, |notes| notes.counts.closed += 1);
    }

    pub(super) fn late(&self, class: Class) {
        self.with(class, |notes| notes.counts.late += 1);
    }

    pub(super) fn failed(&self, class: Class, failure: Failure) {
        let Failure { kind, detail, of } = failure;
        let at = self.begun.elapsed();
        let mut notes = self.lock();
        let counts = &mut notes.classes.entry(class).or_insert_with(ClassNotes::new).counts;
        let first = || Failures { count: 0, first: format!("{detail} (after {at:.1?})") };
        counts.failures.entry(kind).or_insert_with(first).count += 1;
        if notes.incidents.len() < MOST_INCIDENTS {
            let at = Instant::now();
            let Identity { started, client, generation } = of;
            notes.incidents.push(Incident { class, kind, detail, started, client, generation, at });
        }
    }

    /// Notes that the generator itself broke, in each class: no number of such a run can be trusted.
    pub(super) fn broken(&self, detail: &str) {
        let classes: Vec<Class> = self.lock().classes.keys().copied().collect();
        for class in classes {
            self.failed(class, Failure::new(FailureKind::Local, detail));
        }
    }

    /// Notes how a task of the generator ended.
    pub(super) fn ended(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            self.broken(&format!("the load generator itself failed: {error}"));
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let notes = self.lock();
        let classes =
            notes.classes.iter().map(|(class, notes)| (*class, notes.summary())).collect();
        Summary { elapsed: self.begun.elapsed(), classes }
    }

    pub(super) fn report(&self) -> Report {
        let summary = self.summary();
        let incidents = std::mem::take(&mut self.lock().incidents);
        Report { summary, observations: self.take_observations(), incidents }
    }

    pub(super) fn take_observations(&self) -> Vec<Observation> {
        std::mem::take(&mut self.lock().observations)
    }

    fn with(&self, class: Class, note: impl FnOnce(&mut ClassNotes)) {
        note(self.lock().classes.entry(class).or_insert_with(ClassNotes::new));
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Notes {
    classes: BTreeMap<Class, ClassNotes>,
    observations: Vec<Observation>,
    incidents: Vec<Incident>,
}

/// The counts of a class, whose latencies are filled in from the histograms when asked for.
#[derive(Debug)]
struct ClassNotes {
    counts: ClassSummary,
    connect: Histogram<u64>,
    handshake: Histogram<u64>,
    answer: Histogram<u64>,
}

impl ClassNotes {
    fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
                .expect("1 is below the constant upper bound")
        };
        Self {
            counts: ClassSummary::default(),
            connect: histogram(),
            handshake: histogram(),
            answer: histogram(),
        }
    }

    fn summary(&self) -> ClassSummary {
        ClassSummary {
            connect: Latency::of(&self.connect),
            handshake: Latency::of(&self.handshake),
            answer: Latency::of(&self.answer),
            ..self.counts.clone()
        }
    }
}

fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(LONGEST_MICROS));
}

/// Enough to understand what went wrong; all are counted.
const MOST_INCIDENTS: usize = 10_000;
/// An hour: longer than any request of a bounded run.
const LONGEST_MICROS: u64 = 3_600_000_000;
