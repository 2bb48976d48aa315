//! Whether a run was a success, and whether its numbers say more about the generator than about the server.

use agent_load::{FailureKind, Shortage, Summary};
use serde::{Deserialize, Serialize};

/// How a run is judged. The first that holds, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A request failed, by a fault of the server or on the way to it.
    Failed,
    /// The generator could not keep its rate, or ran out of something.
    Overloaded,
    /// Nothing failed, but nothing was answered either.
    Unanswered,
    /// Every request was answered as it should be, and begun in time.
    Passed,
}

/// What the generator could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Overload {
    /// Whether the rate was not kept: over a hundredth of the requests were begun late or not at all.
    pub rate_missed: bool,
    /// Requests begun more than 10 ms after their time.
    pub late: u64,
    /// Requests whose time had come and that were never begun.
    pub unbegun: u64,
    /// All requests whose time had come.
    pub due: u64,
    /// The latest begin, in microseconds after its time.
    pub latest_us: u64,
    /// How often there was no local port left.
    pub out_of_ports: u64,
    /// How often there was no descriptor left.
    pub out_of_descriptors: u64,
    /// How often there was no memory left for a socket.
    pub out_of_memory: u64,
    /// All failures of the generator itself, these included.
    pub local_failures: u64,
}

impl Overload {
    /// What a run shows of it.
    pub(super) fn of(summary: &Summary) -> Self {
        let classes = || summary.classes.values();
        let shortage = |of: Shortage| classes().filter_map(|class| class.shortages.get(&of)).sum();
        let late: u64 = classes().map(|class| class.late).sum();
        let unbegun: u64 = classes().map(|class| class.unbegun).sum();
        let due = unbegun + classes().map(|class| class.begun).sum::<u64>();
        // By class: one that is kept must not hide another that is not.
        let missed = classes()
            .any(|class| (class.late + class.unbegun) * TOLERATED > class.begun + class.unbegun);
        Self {
            rate_missed: missed,
            late,
            unbegun,
            due,
            latest_us: classes().map(|class| class.lateness.max_us).max().unwrap_or_default(),
            out_of_ports: shortage(Shortage::Ports),
            out_of_descriptors: shortage(Shortage::Descriptors),
            out_of_memory: shortage(Shortage::Memory),
            local_failures: summary.failures_of(FailureKind::Local),
        }
    }

    fn is_one(&self) -> bool {
        self.rate_missed || self.local_failures > 0
    }
}

impl Verdict {
    pub(super) fn of(summary: &Summary, overload: &Overload) -> Self {
        if summary.failures() > overload.local_failures {
            Self::Failed
        } else if overload.is_one() {
            Self::Overloaded
        } else if summary.answers() == 0 {
            Self::Unanswered
        } else {
            Self::Passed
        }
    }
}

/// One in so many requests may be late: any machine with other work loses the processor for 10 ms now and then.
const TOLERATED: u64 = 100;

#[cfg(test)]
mod tests {
    use agent_load::{Class, ClassSummary, Failures};

    use super::*;

    fn judged(class: ClassSummary) -> Verdict {
        let busy = ClassSummary { begun: 1_000_000, answers: 1, ..ClassSummary::default() };
        let classes = [(Class::OneShot, class), (Class::KeepAlive, busy)].into();
        let summary = Summary { classes, ..Summary::default() };
        Verdict::of(&summary, &Overload::of(&summary))
    }

    fn with(begun: u64, late: u64, unbegun: u64, failure: Option<FailureKind>) -> ClassSummary {
        let failures = failure.map(|kind| (kind, Failures { count: 1, first: String::new() }));
        let failures = failures.into_iter().collect();
        ClassSummary { begun, late, unbegun, failures, ..ClassSummary::default() }
    }

    #[test]
    fn one_failure_of_the_server_is_one_too_many() {
        assert_eq!(judged(with(100, 0, 0, Some(FailureKind::Refused))), Verdict::Failed);
        assert_eq!(judged(with(100, 90, 0, Some(FailureKind::Refused))), Verdict::Failed);
    }

    #[test]
    fn a_rate_is_kept_up_to_one_late_request_in_a_hundred() {
        assert_eq!(judged(with(100, 1, 0, None)), Verdict::Passed);
        assert_eq!(judged(with(100, 2, 0, None)), Verdict::Overloaded);
        assert_eq!(judged(with(99, 0, 2, None)), Verdict::Overloaded);
    }

    #[test]
    fn what_the_generator_ran_out_of_is_no_success() {
        assert_eq!(judged(with(100, 0, 0, Some(FailureKind::Local))), Verdict::Overloaded);
    }

    #[test]
    fn a_run_without_answers_is_none() {
        let nothing = Summary::default();
        assert_eq!(Verdict::of(&nothing, &Overload::of(&nothing)), Verdict::Unanswered);
    }
}
