//! Numbers that were taken the same way, with their unit.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    Milliseconds,
    Nanoseconds,
    PerSecond,
    /// One thing per another one, both counted.
    Ratio,
    /// Of the time of one processor, 1 for all of it.
    Share,
    Bytes,
    Count,
}

/// At least one value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) unit: Unit,
    pub(super) count: usize,
    pub(super) minimum: f64,
    pub(super) median: f64,
    pub(super) maximum: f64,
    /// In the order in which they were taken.
    values: Vec<f64>,
}

impl Sample {
    pub(super) fn of(unit: Unit, values: Vec<f64>) -> Result<Self> {
        ensure!(!values.is_empty(), "nothing was measured");
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (count, middle) = (sorted.len(), sorted.len() / 2);
        let median = match count % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Ok(Self { unit, count, minimum: sorted[0], median, maximum: sorted[count - 1], values })
    }

    pub(super) fn of_times(times: &[Duration]) -> Result<Self> {
        let milliseconds = times.iter().map(|time| time.as_nanos() as f64 / 1e6).collect();
        Self::of(Unit::Milliseconds, milliseconds)
    }

    /// Each value of `numerator` by the one that was taken together with it.
    pub(super) fn ratio(numerator: &Self, denominator: &Self) -> Result<Self> {
        let pairs = numerator.values.iter().zip(&denominator.values);
        Self::of(
            Unit::Ratio,
            pairs.map(|(numerator, denominator)| numerator / denominator).collect(),
        )
    }
}

impl Unit {
    /// A value as people read it.
    pub(super) fn show(self, value: f64) -> Shown {
        Shown { unit: self, value }
    }
}

/// A value to be shown with its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    unit: Unit,
    value: f64,
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, value } = *self;
        match unit {
            Unit::Milliseconds => write!(formatter, "{value:.2} ms"),
            Unit::Nanoseconds => write!(formatter, "{value:.0} ns"),
            Unit::PerSecond => write!(formatter, "{}/s", grouped(value.round() as u64)),
            Unit::Ratio => write!(formatter, "{value:.3}"),
            Unit::Share => write!(formatter, "{:.1} %", value * 100.0),
            Unit::Bytes => write!(formatter, "{} B", grouped(value.round() as u64)),
            Unit::Count => write!(formatter, "{}", grouped(value.round() as u64)),
        }
    }
}

/// A number with a comma after each three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Sample::of(Unit::Nanoseconds, vec![9.0, 1.0, 3.0]).unwrap();
        assert_eq!((odd.minimum, odd.median, odd.maximum, odd.count), (1.0, 3.0, 9.0, 3));
        let even = Sample::of(Unit::Nanoseconds, vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(even.median, 2.5);
        Sample::of(Unit::Nanoseconds, Vec::new()).unwrap_err();
    }

    #[test]
    fn a_ratio_is_of_each_pair() {
        let of = |values: &[f64]| Sample::of(Unit::PerSecond, values.to_vec()).unwrap();
        let ratio = Sample::ratio(&of(&[1.0, 6.0]), &of(&[2.0, 3.0])).unwrap();
        assert_eq!((ratio.minimum, ratio.maximum), (0.5, 2.0));
    }

    #[test]
    fn digits_come_in_groups_of_three() {
        assert_eq!([1, 999, 1_000, 1_234_567].map(grouped), ["1", "999", "1,000", "1,234,567"]);
    }
}
