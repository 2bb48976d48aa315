//! The tables of a run.

use std::collections::BTreeMap;

use super::contender::Contender;
use super::results::{Act, Results, Switch, Turn};
use super::spread::Spread;
use super::turn::{KEPT, STREAMS, UPLOADS};
use crate::measure::grouped;
use crate::soak::bound;

/// All of one contender's turns in one place.
#[derive(Debug)]
pub(super) struct Sum<'a> {
    pub(super) contender: &'a Contender,
    turns: Vec<&'a Turn>,
}

impl<'a> Sum<'a> {
    /// One for each contender that ran.
    pub(super) fn all(results: &'a Results) -> Vec<Self> {
        let sum = |contender| Self { contender, turns: results.of(contender).collect() };
        results.contenders.iter().map(sum).filter(|sum| !sum.turns.is_empty()).collect()
    }

    pub(super) fn switches(&self) -> impl Iterator<Item = &Switch> {
        self.turns.iter().flat_map(|turn| &turn.switches)
    }

    pub(super) fn acts(&self, act: Act) -> impl Iterator<Item = &Switch> {
        self.switches().filter(move |switch| switch.act == act)
    }

    pub(super) fn total(&self, count: impl Fn(&Turn) -> u64) -> u64 {
        self.turns.iter().map(|turn| count(turn)).sum()
    }

    pub(super) fn per_switch(&self, count: impl Fn(&Turn) -> u64) -> Option<Spread> {
        let each = |turn: &&Turn| count(turn) as f64 / turn.switches.len().max(1) as f64;
        Spread::of(self.turns.iter().map(each))
    }

    /// Requests per second by those of the same server alone: on new connections, and on kept ones if there are any.
    pub(super) fn steady(&self) -> Option<(Spread, Option<Spread>)> {
        let steady = || self.turns.iter().filter_map(|turn| turn.steady);
        let ratio = |[alone, contender]: [f64; 2]| contender / alone;
        let new = Spread::of(steady().map(|it| ratio(it.new)))?;
        Some((new, Spread::of(steady().filter_map(|it| it.kept).map(ratio))))
    }

    /// What the server alone can do.
    fn alone(&self) -> String {
        let steady = || self.turns.iter().filter_map(|turn| turn.steady);
        let median = |values: Vec<f64>| {
            Spread::of(values).map_or(NOTHING.to_owned(), |it| grouped(it.median.round() as u64))
        };
        let new = median(steady().map(|it| it.new[0]).collect());
        let kept = median(steady().filter_map(|it| it.kept).map(|kept| kept[0]).collect());
        format!("{new} / {kept}")
    }

    fn kinds(&self) -> BTreeMap<String, u64> {
        let mut kinds = BTreeMap::new();
        for turn in &self.turns {
            let failed = turn.failed.iter().map(|(class, kinds)| (format!("new {class}"), kinds));
            let broken = turn.broken.iter().map(|(class, kinds)| (class.clone(), kinds));
            for (class, failures) in failed.chain(broken) {
                for (kind, count) in failures {
                    *kinds.entry(words(&format!("{class}: {kind}"))).or_default() += count;
                }
            }
        }
        kinds
    }
}

/// What most readers want to know.
pub(super) fn short(results: &Results) -> String {
    let mut table = Table::new(
        "contender | application | failed new, per upgrade | broken old, per upgrade | speed, new / kept | undone after",
        "--- | --- | ---: | ---: | ---: | ---:",
    );
    for sum in &Sum::all(results) {
        let steady = sum.steady().map(|(new, kept)| {
            let kept = kept.map_or(NOTHING.to_owned(), |kept| format!("{:.2}", kept.median));
            format!("{:.2} / {kept}", new.median)
        });
        let undo = Spread::of(sum.acts(Act::Undo).filter_map(Switch::complete_ms));
        table.row(&[
            sum.contender.title.clone(),
            sum.contender.application.clone(),
            mean(sum, Turn::failed_new),
            mean(sum, Turn::broken_established),
            steady.unwrap_or_else(|| NOTHING.to_owned()),
            undo.map_or(NOTHING.to_owned(), |undo| format!("{:.0} ms", undo.median)),
        ]);
    }
    table.gaps(results)
}

/// How much was lost, of how many.
pub(super) fn losses(results: &Results) -> String {
    let mut table = Table::new(
        "contender | upgrades and undos | new connections | of these failed | at most (95 %) | slower than 1 s | open at each | broken, per upgrade | ended after announcing it",
        "--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---:",
    );
    for sum in &Sum::all(results) {
        let (attempts, failed) = (sum.total(Turn::attempts), sum.total(Turn::failed_new));
        let bound = bound::upper_95(failed, attempts) * 1e6;
        let broken = sum.per_switch(Turn::broken_established);
        table.row(&[
            sum.contender.title.clone(),
            sum.switches().count().to_string(),
            grouped(attempts),
            grouped(failed),
            format!("{} in a million", grouped(bound.ceil() as u64)),
            grouped(sum.total(|turn| turn.slow)),
            open(sum.contender).to_string(),
            broken.map_or(NOTHING.to_owned(), |it| it.shown(1)),
            grouped(sum.total(|turn| turn.announced)),
        ]);
    }
    table.gaps(results)
}

/// How it was lost.
pub(super) fn kinds(results: &Results) -> String {
    let mut table = Table::new("contender | what clients saw", "--- | ---");
    for sum in &Sum::all(results) {
        let kinds: Vec<String> =
            sum.kinds().iter().map(|(kind, count)| format!("{kind} {}", grouped(*count))).collect();
        let kinds = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join("; ") };
        table.row(&[sum.contender.title.clone(), kinds]);
    }
    table.gaps(results)
}

/// What new connections waited close to a switch.
pub(super) fn latency(results: &Results) -> String {
    let mut table = Table::new(
        "contender | handshakes | median | 99 % | longest",
        "--- | ---: | ---: | ---: | ---:",
    );
    for sum in &Sum::all(results) {
        let Some(spread) = handshakes(sum) else { continue };
        let show = |micros: f64| format!("{:.2} ms", micros / 1e3);
        table.row(&[
            sum.contender.title.clone(),
            grouped(spread.count as u64),
            show(spread.median),
            show(spread.high),
            show(spread.maximum),
        ]);
    }
    table.gaps(results)
}

/// Those close to a switch, in microseconds.
pub(super) fn handshakes(sum: &Sum<'_>) -> Option<Spread> {
    let each = |(micros, count): (&u64, &u64)| {
        std::iter::repeat_n(*micros as f64, usize::try_from(*count).unwrap_or(usize::MAX))
    };
    Spread::of(sum.switches().flat_map(|it| &it.connect_us).flat_map(each))
}

/// How long it takes.
pub(super) fn times(results: &Results) -> String {
    let mut table = Table::new(
        "contender | upgrade: the command | until the first connection is on the new version | until the last one on the old version | both versions answer for | undo: until all are on the version before | CPU of the agent, per upgrade",
        "--- | ---: | ---: | ---: | ---: | ---: | ---:",
    );
    let show = |values: Vec<f64>| {
        Spread::of(values).map_or(NOTHING.to_owned(), |spread| format!("{} ms", spread.shown(1)))
    };
    for sum in Sum::all(results).iter().filter(|sum| sum.contender.upgrades) {
        let upgrades = |value: fn(&Switch) -> Option<f64>| {
            show(sum.acts(Act::Upgrade).filter_map(value).collect())
        };
        table.row(&[
            sum.contender.title.clone(),
            upgrades(|it| Some(it.command_ms)),
            upgrades(|it| it.first_new_ms),
            upgrades(|it| it.last_old_ms),
            upgrades(Switch::overlap_ms),
            show(sum.acts(Act::Undo).filter_map(Switch::complete_ms).collect()),
            upgrades(|it| it.agent_cpu_ms),
        ]);
    }
    table.gaps(results)
}

/// What it takes of the server's speed.
pub(super) fn steady(results: &Results) -> String {
    let mut table = Table::new(
        "contender | server | alone, new / kept per second | a new connection per request | kept connections",
        "--- | --- | ---: | ---: | ---:",
    );
    for sum in &Sum::all(results) {
        let Some((new, kept)) = sum.steady() else { continue };
        let Contender { title, server, .. } = sum.contender;
        let kept = kept.map_or(NOTHING.to_owned(), |kept| kept.shown(3));
        table.row(&[title.clone(), server.clone(), sum.alone(), new.shown(3), kept]);
    }
    table.text
}

/// Which script does what.
pub(super) fn contenders(results: &Results) -> String {
    let mut table = Table::new("contender | how it is upgraded", "--- | ---");
    for contender in &results.contenders {
        let Contender { name, title, way, .. } = contender;
        table.row(&[format!("[{title}](../bench/contenders/{name}.sh)"), way.clone()]);
    }
    table.text
}

/// In the mean of all, because most have none and the median would hide the others.
fn mean(sum: &Sum<'_>, count: impl Fn(&Turn) -> u64) -> String {
    let (total, switches) = (sum.total(count), sum.switches().count().max(1));
    rate(total as f64 / switches as f64)
}

/// Only what is nothing looks like nothing.
fn rate(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        0.0..0.01 => "under 0.01".to_owned(),
        0.01..0.1 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

/// How many connections are established at any time.
fn open(contender: &Contender) -> u32 {
    let open = |class: &String| match class.as_str() {
        "keep-alive" => KEPT,
        "stream" => STREAMS,
        "upload" => UPLOADS,
        _ => 0,
    };
    contender.clients.iter().map(open).sum()
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// A table in Markdown.
#[derive(Debug)]
struct Table {
    text: String,
    columns: usize,
}

impl Table {
    fn new(head: &str, rule: &str) -> Self {
        Self { text: format!("| {head} |\n| {rule} |\n"), columns: head.matches(" | ").count() + 1 }
    }

    fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }

    /// Ends it with those who could not run.
    fn gaps(mut self, results: &Results) -> String {
        for contender in &results.contenders {
            if let Some(reason) = results.gaps.get(&contender.name) {
                let reason = reason.replace(['\n', '|'], " ");
                let rest = "| ".repeat(self.columns.saturating_sub(2));
                self.text
                    .push_str(&format!("| {} | did not run: {reason} {rest}|\n", contender.title));
            }
        }
        self.text
    }
}

const NOTHING: &str = "–";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nothing_looks_like_nothing() {
        assert_eq!(
            [0.0, 0.001, 0.0167, 0.15, 21.04].map(rate),
            ["0", "under 0.01", "0.02", "0.1", "21.0"]
        );
    }
}
