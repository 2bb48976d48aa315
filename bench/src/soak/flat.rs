//! Whether a series of samples grows.

use std::fmt;

use serde::Serialize;

/// What is looked at.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(super) struct Measure {
    pub(super) whose: Whose,
    pub(super) name: String,
    pub(super) unit: Unit,
}

/// How long it lives.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Whose {
    /// As long as the process. Only the last agent's samples are compared.
    Agent,
    /// For the whole run.
    System,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    Bytes,
    Entries,
}

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Point {
    /// Seconds from the begin of the run.
    pub(super) at: f64,
    pub(super) value: u64,
}

/// How a series goes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trend {
    /// Begin, quarter, middle, three quarters, end: each the median of the samples around it.
    pub(super) course: [u64; 5],
    /// By least squares.
    pub(super) slope_per_hour: f64,
    /// By how much the median of the last quarter is above that of the second one. The first one is warming up.
    pub(super) growth: i64,
    pub(super) allowed: u64,
    pub(super) verdict: Verdict,
}

/// What is to be thought of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Flat,
    Grows,
    /// The series covers too little time: caches and histories fill up in the first minutes.
    TooShort,
}

impl Trend {
    /// Judges the samples from an instant on; `None` without any.
    pub(super) fn of(measure: &Measure, points: &[Point], since: f64) -> Option<Self> {
        let from = points.partition_point(|point| point.at < since);
        let points = &points[from..];
        let (first, last) = (points.first()?, points.last()?);
        let values: Vec<u64> = points.iter().map(|point| point.value).collect();
        let at = |share: f64| (values.len() as f64 * share) as usize;
        let second = median(&values[at(0.25)..at(0.5).max(at(0.25) + 1).min(values.len())]);
        let fourth = median(&values[at(0.75).min(values.len() - 1)..]);
        let growth = fourth.cast_signed() - second.cast_signed();
        let allowed = measure.unit.tolerance(second);
        let verdict = match growth > allowed.cast_signed() {
            _ if last.at - first.at < SHORTEST => Verdict::TooShort,
            true => Verdict::Grows,
            false => Verdict::Flat,
        };
        let course = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| around(&values, share));
        Some(Self { course, slope_per_hour: slope(points) * 3_600.0, growth, allowed, verdict })
    }
}

impl Unit {
    /// By how much the later median may be above the earlier one: what the number of generations that live just then explains,
    /// and what an allocator keeps.
    fn tolerance(self, earlier: u64) -> u64 {
        match self {
            Self::Bytes => (earlier / 20).max(256 << 10),
            Self::Entries => (earlier / 20).max(4),
        }
    }

    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Bytes if value.abs() >= MEBIBYTE => format!("{:.1} MiB", value / MEBIBYTE),
            Self::Bytes => format!("{:.1} KiB", value / 1_024.0),
            Self::Entries if value.fract() == 0.0 => format!("{value}"),
            Self::Entries => format!("{value:.1}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Flat => "flat",
            Self::Grows => "grows",
            Self::TooShort => "too short to tell",
        })
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// The median of the samples next to a place.
fn around(values: &[u64], share: f64) -> u64 {
    let middle = ((values.len() - 1) as f64 * share).round() as usize;
    let from = middle.saturating_sub(NEIGHBOURS);
    median(&values[from..(middle + NEIGHBOURS + 1).min(values.len())])
}

fn slope(points: &[Point]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (time, value) = (mean(|point| point.at), mean(|point| point.value as f64));
    let products = points.iter().map(|it| (it.at - time) * (it.value as f64 - value)).sum::<f64>();
    let squares = points.iter().map(|it| (it.at - time).powi(2)).sum::<f64>();
    if squares == 0.0 { 0.0 } else { products / squares }
}

/// In seconds.
const SHORTEST: f64 = 240.0;
const NEIGHBOURS: usize = 2;
const MEBIBYTE: f64 = 1_048_576.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(unit: Unit, seconds: u32, value: impl Fn(u32) -> u64) -> Trend {
        let points: Vec<Point> =
            (0..seconds).map(|at| Point { at: at.into(), value: value(at) }).collect();
        let measure = Measure { whose: Whose::System, name: "it".to_owned(), unit };
        Trend::of(&measure, &points, 0.0).unwrap()
    }

    #[test]
    fn what_comes_and_goes_is_flat_and_what_only_comes_grows() {
        let coming_and_going = trend(Unit::Entries, 1_000, |at| 10 + u64::from(at % 7));
        assert_eq!(coming_and_going.verdict, Verdict::Flat);
        let coming = trend(Unit::Entries, 1_000, |at| 10 + u64::from(at / 50));
        assert_eq!(coming.verdict, Verdict::Grows);
        assert!((70.0..74.0).contains(&coming.slope_per_hour), "{coming:?}");
    }

    #[test]
    fn a_slow_leak_is_found_among_megabytes() {
        let leak = trend(Unit::Bytes, 3_600, |at| (20 << 20) + u64::from(at) * 1_024);
        assert_eq!(leak.verdict, Verdict::Grows);
        let warming_up =
            trend(Unit::Bytes, 3_600, |at| (20 << 20) + u64::from(at.min(900)) * 4_096);
        assert_eq!(warming_up.verdict, Verdict::Flat);
    }

    #[test]
    fn of_a_short_run_nothing_is_said() {
        assert_eq!(trend(Unit::Entries, 30, u64::from).verdict, Verdict::TooShort);
    }

    #[test]
    fn only_samples_from_an_instant_on_count() {
        let points = [Point { at: 1.0, value: 9 }, Point { at: 2.0, value: 1 }];
        let measure = Measure { whose: Whose::Agent, name: "it".to_owned(), unit: Unit::Entries };
        assert_eq!(Trend::of(&measure, &points, 1.5).unwrap().course, [1; 5]);
        assert!(Trend::of(&measure, &points, 3.0).is_none());
    }
}
