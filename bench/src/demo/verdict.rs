//! What the clients saw, and whether that is as promised.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent_api::{History, RolloutView};
use agent_load::{Class, FailureKind, Observation};
use agent_rollout::{Kind, Outcome};

use super::screen::Screen;
use super::traffic::Seen;

/// Whether all that was promised was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Broken,
}

/// A story that was told to its end.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) history: History,
    pub(super) seen: Seen,
    /// New connections that our program gave to a generation.
    pub(super) steered: u64,
}

/// From when on new connections were to go to which generation.
#[derive(Clone, Copy, Debug)]
struct Switch {
    at: Instant,
    to: u32,
}

impl Told {
    /// Shows the summary.
    pub(super) fn show(&self, screen: &Screen) -> Verdict {
        screen.act("Summary");
        self.show_rollouts(screen);
        screen.text("");
        let summaries: Vec<_> = self.seen.all().map(|report| &report.summary).collect();
        let count = |classes: &[Class], of: fn(&agent_load::ClassSummary) -> u64| -> u64 {
            let all = summaries.iter().flat_map(|summary| &summary.classes);
            all.filter(|(class, _)| classes.contains(class)).map(|(_, seen)| of(seen)).sum()
        };
        let guests = [Class::KeepAlive, Class::Stream];
        let strays = self.strays();
        let slowest = summaries.iter().flat_map(|summary| summary.classes.values());
        let slowest = slowest.map(|seen| seen.handshake.max_us).max().unwrap_or_default();
        let failures = self.failures();
        let failed: u64 = failures.values().sum();
        screen.text(&format!(
            "  new connections    {:>6}   {} steered by the kernel program, {} to a generation that was not meant",
            count(&[Class::OneShot], |seen| seen.connections),
            self.steered,
            strays.len(),
        ));
        screen.text(&format!(
            "  long connections   {:>6}   with {} requests; {} moved to another generation",
            count(&guests, |seen| seen.connections),
            count(&guests, |seen| seen.requests),
            failures.get(&FailureKind::Moved).unwrap_or(&0),
        ));
        screen.text(&format!("  failures           {failed:>6}   {}", by_kind(&failures)));
        screen.text(&format!("  slowest connect    {}", milliseconds(slowest as f64 / 1e6)));
        screen.text("");
        if failed == 0 && strays.is_empty() && self.steered > 0 && self.all_as_planned() {
            screen.good("no client noticed anything");
            return Verdict::Kept;
        }
        for summary in &summaries {
            screen.output(&summary.to_string());
        }
        for stray in strays.iter().take(10) {
            screen.output(&format!("by generation {:?}: {stray:?}", stray.generation));
        }
        screen.bad("this was not as promised");
        Verdict::Broken
    }

    fn show_rollouts(&self, screen: &Screen) {
        screen.text(&format!(
            "  {:<16}{:<18}{:<26}{:<18}{}",
            "rollout", "switched after", "slowest connect near it", "ended after", "outcome"
        ));
        for rollout in &self.history.rollouts {
            let kind = match rollout.kind {
                Kind::Upgrade => "upgrade",
                Kind::Undo => "undo",
                Kind::Restart => "restart",
            };
            let near = self.switch(rollout).and_then(|switch| {
                self.seen.steady.longest_handshake_near(switch.at, Duration::from_millis(250))
            });
            screen.text(&format!(
                "  {:<16}{:<18}{:<26}{:<18}{}",
                format!("{kind} {} → {}", rollout.from, rollout.to),
                rollout.switched_after.map_or_else(dash, told),
                near.map_or_else(dash, |near| milliseconds(near.as_secs_f64())),
                rollout.ended_after.map_or_else(dash, told),
                outcome(rollout),
            ));
        }
    }

    /// Five upgrades, of which one was not ready and one was put back, and the undo itself.
    fn all_as_planned(&self) -> bool {
        let outcomes =
            self.history.rollouts.iter().map(|rollout| (rollout.kind, rollout.outcome()));
        let of =
            |wanted: fn(&(Kind, Option<&Outcome>)) -> bool| outcomes.clone().filter(wanted).count();
        of(|it| matches!(it, (Kind::Upgrade, Some(Outcome::Completed)))) == 3
            && of(|it| matches!(it, (Kind::Upgrade, Some(Outcome::NotReady { .. })))) == 1
            && of(|it| matches!(it, (Kind::Upgrade, Some(Outcome::RolledBack { .. })))) == 1
            && of(|it| matches!(it, (Kind::Undo, Some(Outcome::Completed)))) == 1
    }

    fn failures(&self) -> BTreeMap<FailureKind, u64> {
        let mut failures = BTreeMap::new();
        let classes = self.seen.all().flat_map(|report| report.summary.classes.values());
        for (kind, seen) in classes.flat_map(|class| &class.failures) {
            *failures.entry(*kind).or_default() += seen.count;
        }
        failures
    }

    /// New connections that were begun between two switches, and answered by another generation than the one that was to
    /// get them then.
    fn strays(&self) -> Vec<&Observation> {
        let mut switches: Vec<Switch> =
            self.history.rollouts.iter().filter_map(|rollout| self.switch(rollout)).collect();
        switches.sort_by_key(|switch| switch.at);
        strays(&switches, &self.seen.steady.observations)
    }

    fn switch(&self, rollout: &RolloutView) -> Option<Switch> {
        let at = rollout.began.checked_add(rollout.switched_after?)?;
        Some(Switch { at: self.seen.instant(at)?, to: rollout.to.0 })
    }
}

/// A connection was looked up at some instant between its begin and its handshake's end: a generation that was to get new
/// connections in any part of that time is the right one.
fn strays<'a>(switches: &[Switch], seen: &'a [Observation]) -> Vec<&'a Observation> {
    let is_stray = |seen: &&Observation| {
        let before = switches.iter().rfind(|switch| switch.at + SLACK < seen.started);
        let during = switches.iter().filter(|switch| {
            switch.at + SLACK >= seen.started && switch.at <= seen.connected + SLACK
        });
        let mut meant = std::iter::once(before.map_or(1, |switch| switch.to))
            .chain(during.map(|switch| switch.to));
        !meant.any(|meant| seen.generation == Some(meant))
    };
    seen.iter().filter(is_stray).collect()
}

fn by_kind(failures: &BTreeMap<FailureKind, u64>) -> String {
    if failures.is_empty() {
        return "none refused, reset, cut, timed out, slow, or answered wrongly".to_owned();
    }
    let kinds: Vec<String> =
        failures.iter().map(|(kind, count)| format!("{kind:?}: {count}")).collect();
    kinds.join(", ")
}

fn outcome(rollout: &RolloutView) -> &'static str {
    match rollout.outcome() {
        None => "under way",
        Some(Outcome::Completed) => "completed",
        Some(Outcome::DeadlinePassed { .. }) => "deadline passed",
        Some(Outcome::OldDied { .. }) => "old generation died",
        Some(Outcome::Outlived { .. }) => "old generation killed, not gone",
        Some(Outcome::NewDied) => "new generation died",
        Some(Outcome::NotReady { .. }) => "not ready",
        Some(Outcome::RolledBack { .. }) => "rolled back",
    }
}

/// A time of the agent, which counts in whole milliseconds.
fn told(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    match seconds * 1e3 {
        none if none < 0.5 => "< 1 ms".to_owned(),
        few if few < 1e3 => format!("{few:.0} ms"),
        _ => format!("{seconds:.1} s"),
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

fn dash() -> String {
    "-".to_owned()
}

/// The agent notes the time of a switch, in whole milliseconds, just before it makes it; on a busy machine it may lose the
/// processor in between.
const SLACK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_reached_another_generation_is_found() {
        let begun = Instant::now();
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        let seen = |started, connected, generation| Observation {
            class: Class::OneShot,
            connection: 0,
            started: at(started),
            connected: at(connected),
            answered: at(connected),
            generation: Some(generation),
        };
        let switches = [Switch { at: at(1000), to: 2 }, Switch { at: at(2000), to: 3 }];
        let right = [
            seen(500, 501, 1),
            seen(990, 991, 2),
            seen(1010, 1011, 1),
            seen(800, 1001, 2),
            seen(1500, 1501, 2),
            seen(2500, 2501, 3),
        ];
        assert!(strays(&switches, &right).is_empty());
        let observations = [seen(500, 501, 2), seen(2500, 2501, 2), seen(1800, 2001, 1)];
        let found: Vec<Instant> =
            strays(&switches, &observations).iter().map(|stray| stray.started).collect();
        assert_eq!(found, [at(500), at(2500), at(1800)]);
    }
}
