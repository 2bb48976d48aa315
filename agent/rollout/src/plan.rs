//! What an upgrade was asked to do.

use std::time::Duration;

use agent_terms::{OptionalSpan, Release, Signal, Span};
use serde::{Deserialize, Serialize};

/// Milliseconds since the machine started, sleep included: setting the clock moves no deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment this much later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The moment this much earlier.
    #[must_use]
    pub const fn before(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(delay.as_millis() as u64))
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A time that has passed, as exact as people care: a timer is never quite on time.
fn rounded(time: Duration) -> Duration {
    const TENTH: u64 = 100;
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match milliseconds {
        ..TENTH => Duration::from_millis(milliseconds),
        TENTH..10_000 => Duration::from_millis((milliseconds + TENTH / 2) / TENTH * TENTH),
        10_000.. => Duration::from_secs(milliseconds / 1_000),
    }
}

/// A time span in words, as exact as people care: of seconds with tenths no two units are made.
pub fn spoken(time: Duration) -> String {
    let time = rounded(time);
    let is_fraction = time.subsec_millis() != 0 && time.as_secs() != 0;
    if is_fraction { format!("{time:?}") } else { humantime::format_duration(time).to_string() }
}

/// The bounds of one upgrade, and how the generation it replaces is to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What the deploy calls what it brings.
    #[serde(default)]
    pub release: Option<Release>,
    /// What shows that the new generation works.
    pub ready: Readiness,
    /// How long it may take until then.
    #[serde(with = "Span")]
    pub ready_timeout: Duration,
    /// How long after the switch it has to prove itself, with the replaced one there to go back to.
    #[serde(with = "Span")]
    pub settle: Duration,
    /// How the replaced generation drains.
    pub drain: DrainPlan,
}

/// What shows that a new generation works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// It listens on every endpoint. A server may do so long before it can answer, or without ever being able to.
    Listen,
    /// It has accepted a connection on every endpoint.
    #[default]
    Accept,
}

/// How a replaced generation leaves. What is not said is as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DrainPlan {
    /// When it is signalled.
    pub policy: DrainPolicy,
    /// With what.
    pub signal: Signal,
    /// How long its accept queue and its half-open requests are waited for.
    #[serde(with = "Span")]
    pub queue_timeout: Duration,
    /// How long its flows are waited for.
    #[serde(with = "Span")]
    pub timeout: Duration,
    /// How long it may take to end after the signal, before it is killed.
    #[serde(with = "Span")]
    pub stop_timeout: Duration,
    /// How long after the switch it is kept to fall back to, even if it has drained.
    #[serde(with = "Span")]
    pub keep_old: Duration,
}

impl DrainPlan {
    /// How long a new generation may take until it is ready, where nobody said.
    pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
    /// How long it has to prove itself, where nobody said.
    pub const SETTLE: Duration = Duration::from_millis(2_500);
}

impl Default for DrainPlan {
    /// What the command line has where nothing is said.
    fn default() -> Self {
        Self {
            policy: DrainPolicy::Patient { idle: None },
            signal: Signal::TERM,
            queue_timeout: Duration::from_secs(5),
            timeout: Duration::from_hours(1),
            stop_timeout: Duration::from_secs(10),
            keep_old: Duration::ZERO,
        }
    }
}

/// When a replaced generation is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "policy")]
pub enum DrainPolicy {
    /// When it has no flow left, or all that remain have been idle for this long: for servers that die at a signal.
    Patient {
        /// `None`: idle flows are waited for like any other.
        #[serde(default, with = "OptionalSpan")]
        idle: Option<Duration>,
    },
    /// As soon as its queues are empty: for servers that finish their flows by themselves.
    Graceful,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_no_milliseconds_beside_seconds() {
        let told = |milliseconds| spoken(Duration::from_millis(milliseconds));
        assert_eq!([2_001, 1_960, 60_049, 9_949].map(told), ["2s", "2s", "1m", "9.9s"]);
        assert_eq!([0, 42, 149].map(told), ["0s", "42ms", "100ms"]);
    }
}
