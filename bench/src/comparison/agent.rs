//! The agent by itself: what `cargo xtask measure` measures, kept beside the comparison.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::plot::{self, Row, Scale};
use super::results::Results;
use super::soaked::{self, Soaked};
use super::tables::{self, Sum};
use crate::measure::targets::{Target, Verdict};
use crate::measure::{self, Report, grouped};
use crate::soak::bound;

/// What was measured; nothing if that was not wanted, or never done.
pub(super) fn read(file: &Path) -> Result<Option<Report>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read(file).with_context(|| format!("read `{}`", file.display()))?;
    let report = serde_json::from_slice(&text);
    report.map(Some).with_context(|| format!("understand `{}`", file.display()))
}

/// One line for each measure, so that two runs can be compared line by line.
pub(super) fn write(report: &Report, file: &Path) -> Result<()> {
    let fields: Map<String, Value> = serde_json::from_value(serde_json::to_value(report)?)?;
    let lines: Vec<String> =
        fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    fs::write(file, format!("{{\n{}\n}}\n", lines.join(",\n")))
        .with_context(|| format!("write `{}`", file.display()))
}

/// The tables of the agent by itself.
pub(super) fn tables(report: Option<&Report>) -> String {
    report.map_or(NOTHING.to_owned(), measure::Report::markdown)
}

/// How it grows; nothing without a measurement.
pub(super) fn plot(report: Option<&Report>) -> Option<String> {
    let rows: Vec<Row> = report?
        .growth_in_time()
        .into_iter()
        .map(|(label, [low, middle, high])| Row { label, low, middle, high })
        .collect();
    let title = "Times that may grow, in ms: shortest, median, longest";
    Some(plot::rows(title, Scale::Logarithmic, 0.1, &rows))
}

/// Every target, whether it was met or not.
pub(super) fn targets(
    results: &Results,
    soaked: Option<&Soaked>,
    report: Option<&Report>,
) -> String {
    let mut targets = compared(results);
    targets.extend(report.map(Report::targets).unwrap_or_default());
    targets.extend(soaked.map_or_else(soaked::unmeasured, Soaked::targets));
    targets.push(not_built());
    targets.sort_by_key(|target| target.number);
    let mut text =
        "| | measure | target | measured | |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for Target { number, what, wanted, measured, verdict } in targets {
        let verdict = verdict.shown();
        text.push_str(&format!("| M{number} | {what} | {wanted} | {measured} | {verdict} |\n"));
    }
    text
}

/// Those that the comparison tells about: of all contenders that are upgraded by the agent.
fn compared(results: &Results) -> Vec<Target> {
    let sums = Sum::all(results);
    let ours: Vec<_> = sums.iter().filter(|sum| sum.contender.agent).collect();
    if ours.is_empty() {
        return Vec::new();
    }
    let total =
        |count: fn(&super::Turn) -> u64| ours.iter().map(|sum| sum.total(count)).sum::<u64>();
    let (attempts, failed) = (total(super::Turn::attempts), total(super::Turn::failed_new));
    let broken = total(super::Turn::broken_established);
    let switches: usize = ours.iter().map(|sum| sum.switches().count()).sum();
    let bound = bound::upper_95(failed, attempts) * 1e6;
    let mut targets = vec![
        Target {
            number: 1,
            what: "failed new connections under load",
            wanted: "0, in 200 upgrades",
            measured: format!(
                "{failed} of {} in {switches} upgrades and undos: at most {} in a million (95 %)",
                grouped(attempts),
                grouped(bound.ceil() as u64)
            ),
            verdict: Verdict::of([
                (failed > 0).then(|| format!("{failed} connections")),
                (switches < 200).then(|| format!("{} upgrades that were not made", 200 - switches)),
            ]),
        },
        Target {
            number: 2,
            what: "broken established connections",
            wanted: "0",
            measured: format!("{broken} in {switches} upgrades and undos"),
            verdict: Verdict::of([(broken > 0).then(|| format!("{broken} connections"))]),
        },
    ];
    targets.extend(handshakes(&sums));
    targets
}

fn handshakes(sums: &[Sum<'_>]) -> Option<Target> {
    let of = |name: &str| {
        sums.iter().find(|sum| sum.contender.name == name).and_then(tables::handshakes)
    };
    let (ours, alone) = (of("agent-nginx")?, of("direct")?);
    let times = ours.high / alone.high;
    Some(Target {
        number: 3,
        what: "handshakes within 100 ms of a switch",
        wanted: "as without an upgrade (99 %: ±20 %), never 1 s",
        measured: format!(
            "99 % within {:.2} ms, {:.2} ms without an upgrade; longest {:.1} ms",
            ours.high / 1e3,
            alone.high / 1e3,
            ours.maximum / 1e3
        ),
        verdict: Verdict::of([
            (times > 1.2).then(|| format!("{:.0} % (99 %)", (times - 1.2) * 100.0)),
            (ours.maximum >= 1e6).then(|| format!("{:.0} ms (longest)", ours.maximum / 1e3 - 1e3)),
        ]),
    })
}

fn not_built() -> Target {
    Target {
        number: 15,
        what: "UDP and QUIC misrouted",
        wanted: "0",
        measured: "not built".to_owned(),
        verdict: Verdict::Stated,
    }
}

pub(super) const NOTHING: &str = "Not measured in this run.";
