//! Where the clients of a run write down what they see.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinError;

use super::failure::{Failure, FailureKind, Identity};
use super::notes::{ClassNotes, Notes, record};
use super::plan::{Observations, Plan};
use super::report::{Class, Failures, Incident, Observation, Report, Summary};

/// The notes of one thread of a run: its lock is free but for an occasional snapshot.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Instant,
    keep: Observations,
    notes: Mutex<Notes>,
}

impl Recorder {
    /// Empty notes of a run that has begun at `start`.
    pub(super) fn new(plan: &Plan, start: Instant) -> Self {
        Self { start, keep: plan.observations, notes: Mutex::new(Notes::new(plan)) }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// Notes that a request is begun whose time was `intended`.
    pub(super) fn begun(&self, class: Class, intended: Instant) {
        let lateness = intended.elapsed();
        self.with(class, |notes| {
            notes.counts.begun += 1;
            notes.counts.late += u64::from(lateness > LATE);
            record(&mut notes.lateness, lateness);
        });
    }

    /// Notes how an open loop ended.
    pub(super) fn paced(&self, class: Class, ended: io::Result<u64>) {
        match ended {
            Ok(unbegun) => self.with(class, |notes| notes.counts.unbegun += unbegun),
            Err(error) => self.broken(&format!("wait for the next request's time: {error}")),
        }
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
        let class = notes.classes.entry(observation.class).or_default();
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

    pub(super) fn failed(&self, class: Class, failure: Failure) {
        let Failure { kind, shortage, detail, of } = failure;
        let at = self.start.elapsed();
        let mut notes = self.lock();
        let counts = &mut notes.classes.entry(class).or_default().counts;
        let first = || Failures { count: 0, first: format!("{detail} (after {at:.1?})") };
        counts.failures.entry(kind).or_insert_with(first).count += 1;
        if let Some(shortage) = shortage {
            *counts.shortages.entry(shortage).or_default() += 1;
        }
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

    /// The counts and latencies of all threads of a run.
    pub(super) fn summary(of: &[impl AsRef<Self>]) -> Summary {
        let mut all = Notes::default();
        for recorder in of {
            all.add(&recorder.as_ref().lock());
        }
        let elapsed = of.iter().map(|recorder| recorder.as_ref().start.elapsed()).max();
        Summary { elapsed: elapsed.unwrap_or_default(), classes: all.summaries() }
    }

    /// All that the threads of a run have noted.
    pub(super) fn report(of: &[impl AsRef<Self>]) -> Report {
        let summary = Self::summary(of);
        let mut incidents: Vec<Incident> = Vec::new();
        for recorder in of {
            incidents.append(&mut recorder.as_ref().lock().incidents);
        }
        incidents.sort_by_key(|incident| incident.at);
        let mut observations: Vec<Observation> = Vec::new();
        for recorder in of {
            observations.append(&mut recorder.as_ref().take_observations());
        }
        observations.sort_by_key(|observation| observation.answered);
        Report { summary, observations, incidents }
    }

    pub(super) fn take_observations(&self) -> Vec<Observation> {
        std::mem::take(&mut self.lock().observations)
    }

    fn with(&self, class: Class, note: impl FnOnce(&mut ClassNotes)) {
        note(self.lock().classes.entry(class).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Enough to understand what went wrong; all are counted.
const MOST_INCIDENTS: usize = 10_000;
/// Above what a busy machine takes to wake a thread.
const LATE: Duration = Duration::from_millis(10);
