//! All numbers of a run.

use std::collections::BTreeMap;

use agent_load::{Class, FailureKind, Incident, Observation};
use serde::Serialize;

use super::Played;
use super::bound;
use super::event::Event;
use super::flat::{self, Measure, Point, Trend, Whose};
use super::loss::Loss;
use super::service::Seen;
use super::settings::Settings;
use super::world::Done;
use crate::machine::Machine;

/// Whether all that was promised was kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Kept,
    Broken,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) verdict: Verdict,
    /// Why it is broken, one line for each reason.
    pub(super) reasons: Vec<String>,
    pub(super) machine: Machine,
    pub(super) seed: u64,
    pub(super) asked_seconds: f64,
    pub(super) lasted_seconds: f64,
    pub(super) services: Vec<&'static str>,
    pub(super) classes: BTreeMap<Class, Counts>,
    pub(super) losses: BTreeMap<Loss, BTreeMap<FailureKind, u64>>,
    /// Connections that reached a generation that was not to get them.
    pub(super) strays: u64,
    /// With 95 % confidence, the share of connections that fail without an excuse is at most this.
    pub(super) bound_95: f64,
    pub(super) agent_kills: usize,
    /// Upgrades that ended with a kill of the agent, and were done again.
    pub(super) cut_launches: u64,
    /// Old generations that were killed with their connections while there was no agent, and were reported as drained.
    pub(super) missed_deaths: u64,
    pub(super) generation_deaths: usize,
    /// Commands that were given for the hostile server, and how many of them succeeded.
    pub(super) asked_of_hostile: u64,
    pub(super) done_by_hostile: u64,
    pub(super) counts: BTreeMap<Event, u64>,
    pub(super) series: Vec<Series>,
    pub(super) events: Vec<Done>,
    /// Some of the failures and strays that nothing excuses.
    pub(super) examples: Vec<String>,
}

/// What the clients of one class did and saw.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) requests: u64,
    pub(super) late: u64,
    pub(super) losses: BTreeMap<Loss, u64>,
}

impl Counts {
    /// Those that nothing excuses.
    pub(super) fn failures(&self) -> u64 {
        let of = |loss| self.losses.get(&loss).copied().unwrap_or(0);
        of(Loss::Ours) + of(Loss::Queued)
    }
}

/// One measure over time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Series {
    #[serde(flatten)]
    pub(super) measure: Measure,
    pub(super) trend: Option<Trend>,
    pub(super) points: Vec<Point>,
}

impl Report {
    pub(super) fn of(
        machine: Machine,
        settings: &Settings,
        played: Played,
        left: &[String],
    ) -> Self {
        let Played { seen, notes, series, last_agent, lasted, begun } = played;
        let mut report = Self {
            verdict: Verdict::Kept,
            reasons: notes.faults,
            machine,
            seed: settings.seed,
            asked_seconds: settings.duration.as_secs_f64(),
            lasted_seconds: lasted.as_secs_f64(),
            services: seen.iter().map(|seen| seen.name).collect(),
            classes: BTreeMap::new(),
            losses: BTreeMap::new(),
            strays: seen.iter().map(|seen| seen.stray_count).sum(),
            bound_95: 1.0,
            agent_kills: notes.outages.len(),
            cut_launches: notes.cut_launches,
            missed_deaths: notes.missed_deaths,
            generation_deaths: seen.iter().map(|seen| seen.deaths.len()).sum(),
            asked_of_hostile: notes.asked_of_hostile,
            done_by_hostile: notes.done_by_hostile,
            counts: BTreeMap::new(),
            series: series_of(series, last_agent),
            events: Vec::new(),
            examples: Vec::new(),
        };
        for done in &notes.events {
            *report.counts.entry(done.event).or_default() += 1;
        }
        report.events = notes.events;
        for seen in &seen {
            report.count(seen, begun);
        }
        report.bound_95 = bound::upper_95(report.failures(), report.connections());
        report.judge(left);
        report
    }

    pub(super) fn connections(&self) -> u64 {
        self.classes.values().map(|class| class.connections).sum()
    }

    /// Those that nothing excuses.
    pub(super) fn failures(&self) -> u64 {
        self.lost(Loss::Ours) + self.lost(Loss::Queued)
    }

    pub(super) fn lost(&self, loss: Loss) -> u64 {
        self.losses.get(&loss).map_or(0, |kinds| kinds.values().sum())
    }

    fn count(&mut self, seen: &Seen, begun: std::time::Instant) {
        for (class, summary) in &seen.clients.summary.classes {
            let counts = self.classes.entry(*class).or_default();
            counts.connections += summary.connections;
            counts.requests += summary.requests;
            counts.late += summary.late;
        }
        for incident in &seen.clients.incidents {
            let loss = Loss::of(incident, &seen.deaths);
            *self.losses.entry(loss).or_default().entry(incident.kind).or_default() += 1;
            *self.classes.entry(incident.class).or_default().losses.entry(loss).or_default() += 1;
            let excused = matches!(loss, Loss::DiedWithServer | Loss::NobodyServed);
            if !excused && self.examples.len() < EXAMPLES {
                self.examples.push(described(seen.name, loss, incident, begun));
            }
        }
        let looked_at = u64::try_from(seen.clients.incidents.len()).unwrap_or(u64::MAX);
        let surplus = seen.clients.summary.failures().saturating_sub(looked_at);
        if surplus > 0 {
            self.reasons.push(format!("{}: {surplus} more failures", seen.name));
        }
        let strays = seen.strays.iter().map(|stray| stray_told(seen.name, stray, begun));
        self.examples.extend(strays.take(EXAMPLES));
    }

    fn judge(&mut self, left: &[String]) {
        let mut found = Vec::new();
        if self.events.is_empty() {
            found.push("nothing was done to any service".to_owned());
        }
        // One that is refused everything attacks nobody from inside.
        if self.done_by_hostile * 4 < self.asked_of_hostile {
            let (done, asked) = (self.done_by_hostile, self.asked_of_hostile);
            found.push(format!("{done} of {asked} commands for the hostile server succeeded"));
        }
        let mut check = |count: u64, what: &str| {
            if count > 0 {
                found.push(format!("{count} {what}"));
            }
        };
        check(self.lost(Loss::Ours), "failures that nothing excuses");
        check(self.lost(Loss::Generator), "failures of the clients themselves");
        check(self.strays, "connections that reached a generation that was not to get them");
        check(self.lost(Loss::Queued), "connections lost that waited to be accepted");
        for series in &self.series {
            if series.trend.as_ref().is_some_and(|it| it.verdict == flat::Verdict::Grows) {
                found.push(format!("{} grows", series.measure.name));
            }
        }
        found.extend(left.iter().map(|it| format!("left behind: {it}")));
        self.reasons.extend(found);
        if !self.reasons.is_empty() {
            self.verdict = Verdict::Broken;
        }
    }
}

fn series_of(series: BTreeMap<Measure, Vec<Point>>, last_agent: f64) -> Vec<Series> {
    let judged = |(measure, points): (Measure, Vec<Point>)| {
        let since = match measure.whose {
            Whose::Agent => last_agent,
            Whose::System => 0.0,
        };
        Series { trend: Trend::of(&measure, &points, since), measure, points }
    };
    series.into_iter().map(judged).collect()
}

fn described(name: &str, loss: Loss, incident: &Incident, begun: std::time::Instant) -> String {
    let Incident { class, kind, detail, started, client, generation, at } = incident;
    let seconds = |at: std::time::Instant| at.saturating_duration_since(begun).as_secs_f64();
    let started = started.map_or(f64::NAN, seconds);
    let at = seconds(*at);
    format!(
        "{name}: {class}, {kind:?} ({loss:?}): {detail}; begun at {started:.3} s, failed at {at:.3} s, client {client:?}, generation before {generation:?}"
    )
}

fn stray_told(name: &str, stray: &Observation, begun: std::time::Instant) -> String {
    let Observation { class, generation, started, .. } = stray;
    let started = started.saturating_duration_since(begun).as_secs_f64();
    format!("{name}: {class} stray: begun at {started:.3} s, answered by generation {generation:?}")
}

const EXAMPLES: usize = 100;
