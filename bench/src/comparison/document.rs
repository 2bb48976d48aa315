//! The document: a text that people wrote, with the tables and plots of a run in it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::agent;
use super::contender::folder;
use super::plot::{self, Row, Scale};
use super::results::{Act, Results, Switch};
use super::soaked::Soaked;
use super::spread::Spread;
use super::tables::{self, Sum};
use crate::measure::Report;

/// Writes `benchmarks.md` and the plots beside the results, which are in `benchmarks/results.json`.
pub(super) fn write(
    results: &Results,
    soaked: Option<&Soaked>,
    report: Option<&Report>,
    into: &Path,
) -> Result<()> {
    let template = folder().join("benchmarks.md");
    let text =
        fs::read_to_string(&template).with_context(|| format!("read `{}`", template.display()))?;
    for (name, svg) in plots(results) {
        save(&into.join(format!("benchmarks/{name}.svg")), &svg)?;
    }
    if let Some(svg) = agent::plot(report) {
        save(&into.join("benchmarks/growth.svg"), &svg)?;
    }
    save(&into.join("benchmarks.md"), &filled(&text, results, soaked, report))
}

fn filled(
    template: &str,
    results: &Results,
    soaked: Option<&Soaked>,
    report: Option<&Report>,
) -> String {
    let parts = [
        ("circumstances", circumstances(results)),
        ("short", tables::short(results)),
        ("contenders", tables::contenders(results)),
        ("losses", tables::losses(results)),
        ("kinds", tables::kinds(results)),
        ("latency", tables::latency(results)),
        ("times", tables::times(results)),
        ("steady", tables::steady(results)),
        ("soak", soaked.map_or_else(|| agent::NOTHING.to_owned(), Soaked::markdown)),
        ("agent", agent::tables(report)),
        ("growth", report.map_or(String::new(), |_| GROWTH.to_owned())),
        ("targets", agent::targets(results, soaked, report)),
    ];
    parts.iter().fold(template.to_owned(), |text, (name, part)| {
        text.replace(&format!("{{{{{name}}}}}"), part.trim_end())
    })
}

fn circumstances(results: &Results) -> String {
    let it = &results.circumstances;
    let list = |pairs: &std::collections::BTreeMap<String, String>, between: &str| {
        let pairs: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}{between}{value}")).collect();
        pairs.join(" · ")
    };
    format!(
        "Written by `{}` on {}: {} rounds of all contenders in turn, {} switches each. Linux {}, {} cores ({}). Load average of \
         the machine {} before and {} after: where that is far above what the run itself causes (about 1), others worked on the \
         machine, and times are longer than on a quiet one.\n\nVersions: {}.\n\nKernel parameters: {}.",
        it.command,
        it.date,
        it.rounds,
        it.switches_per_turn,
        it.kernel,
        it.cores,
        it.processor,
        it.load[0],
        it.load[1],
        list(&it.versions, ": "),
        list(&it.parameters, " = "),
    )
}

/// Name and picture of each.
fn plots(results: &Results) -> [(&'static str, String); 3] {
    let sums = Sum::all(results);
    let row = |sum: &Sum<'_>, spread: Option<Spread>, high: fn(Spread) -> f64| {
        let spread = spread?;
        let (low, middle) = (spread.minimum, spread.median);
        Some(Row { label: sum.contender.title.clone(), low, middle, high: high(spread) })
    };
    let latency: Vec<Row> = sums
        .iter()
        .filter_map(|sum| row(sum, tables::handshakes(sum), |spread| spread.maximum))
        .map(|row| Row {
            low: row.low / 1e3,
            middle: row.middle / 1e3,
            high: row.high / 1e3,
            ..row
        })
        .collect();
    let steady: Vec<Row> = sums
        .iter()
        .filter_map(|sum| row(sum, sum.steady().map(|(new, _kept)| new), |spread| spread.maximum))
        .collect();
    let undo: Vec<Row> = sums
        .iter()
        .filter_map(|sum| {
            let times = Spread::of(sum.acts(Act::Undo).filter_map(Switch::complete_ms));
            row(sum, times, |spread| spread.maximum)
        })
        .collect();
    let log = Scale::Logarithmic;
    [
        (
            "latency",
            plot::rows(
                "Handshakes within 100 ms of a switch, in ms: shortest, median, longest",
                log,
                0.01,
                &latency,
            ),
        ),
        (
            "steady",
            plot::rows(
                "Requests per second on new connections, by those of the same server alone",
                Scale::Linear,
                0.0,
                &steady,
            ),
        ),
        (
            "undo",
            plot::rows(
                "From the command to undo until all new connections are on the version before, in ms",
                log,
                1.0,
                &undo,
            ),
        ),
    ]
}

fn save(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write `{}`", file.display()))
}

const GROWTH: &str = "![Times that may grow](benchmarks/growth.svg)";
