//! A report as people read it, in Markdown.

use std::fmt::Write as _;

use agent_load::FailureKind;

use super::flat::{self, Trend, Whose};
use super::loss::Loss;
use super::report::{Report, Series, Verdict};
use crate::machine::Machine;
use crate::measure::grouped;

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut text = heading(report);
    let all = [clients(report), failures(report), events(report), series(report), end(report)];
    for part in all {
        text.push('\n');
        text.push_str(&part);
    }
    text
}

fn heading(report: &Report) -> String {
    let Machine { kernel, cores, processor, agent, load, .. } = &report.machine;
    format!(
        "Soaked on {} with agent {agent} ({BUILD}), Linux {kernel}, {cores} cores ({processor}), load average before the run {load:.2}; \
         {} in one private network namespace, loopback; {:.0} s, seed {}.\n",
        report.machine.day(),
        report.services.join(", "),
        report.lasted_seconds,
        report.seed,
    )
}

fn clients(report: &Report) -> String {
    let mut text = String::from(
        "| clients | connections | requests | failed | of these waited to be accepted at a killed server | ended with the server that was killed |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (class, counts) in &report.classes {
        let lost = |loss| grouped(counts.losses.get(&loss).copied().unwrap_or(0));
        line(
            &mut text,
            format_args!(
                "| {class} | {} | {} | {} | {} | {} |",
                grouped(counts.connections),
                grouped(counts.requests),
                grouped(counts.failures()),
                lost(Loss::Queued),
                lost(Loss::DiedWithServer),
            ),
        );
    }
    let lost = |loss| grouped(report.lost(loss));
    line(
        &mut text,
        format_args!(
            "| **all** | **{}** | | **{}** | {} | {} |",
            grouped(report.connections()),
            grouped(report.failures()),
            lost(Loss::Queued),
            lost(Loss::DiedWithServer),
        ),
    );
    text
}

fn failures(report: &Report) -> String {
    let mut text = format!(
        "{} failures that nothing excuses in {} connections: with 95 % confidence at most {:.1} in a million. {} connections reached a \
         generation that was not to get them.\n",
        report.failures(),
        grouped(report.connections()),
        report.bound_95 * 1e6,
        report.strays,
    );
    for (loss, kinds) in &report.losses {
        let kinds: Vec<String> =
            kinds.iter().map(|(kind, count)| format!("{} {count}", name(*kind))).collect();
        line(&mut text, format_args!("- {}: {}", cause(*loss), kinds.join(", ")));
    }
    text
}

fn events(report: &Report) -> String {
    let mut text = String::from("| event | times | slowest |\n| --- | ---: | ---: |\n");
    for (event, count) in &report.counts {
        let took = report.events.iter().filter(|done| done.event == *event);
        let slowest = took.map(|done| done.to - done.from).fold(0.0, f64::max);
        line(&mut text, format_args!("| {event} | {count} | {slowest:.1} s |"));
    }
    let meanwhile = report.events.iter().filter(|done| done.agent_killed).count();
    line(
        &mut text,
        format_args!(
            "| kill -9 of the agent | {} | during {meanwhile} of the events above |",
            report.agent_kills
        ),
    );
    line(
        &mut text,
        format_args!(
            "\nThe agent was killed before it had launched a candidate {} times (exit 5, done again); {} times an old generation was \
             killed with its connections while there was no agent, and was reported as drained (exit 0).",
            report.cut_launches, report.missed_deaths
        ),
    );
    line(
        &mut text,
        format_args!(
            "Beside them all the while a server that attacks the agent and a neighbour: {} of {} upgrades, undos and detaches of it succeeded.",
            report.done_by_hostile, report.asked_of_hostile
        ),
    );
    text
}

fn series(report: &Report) -> String {
    let mut text = String::from(
        "| over time | begin | 1/4 | 1/2 | 3/4 | end | per hour | |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    for Series { measure, trend, .. } in &report.series {
        let whose = match measure.whose {
            Whose::Agent => "agent: ",
            Whose::System => "",
        };
        let Some(Trend { course, slope_per_hour, verdict, .. }) = trend else {
            line(&mut text, format_args!("| {whose}{} | | | | | | | no sample |", measure.name));
            continue;
        };
        let course = course.map(|value| measure.unit.show(value as f64)).join(" | ");
        let slope = measure.unit.show((slope_per_hour * 10.0).round() / 10.0);
        line(
            &mut text,
            format_args!("| {whose}{} | {course} | {slope} | {verdict} |", measure.name),
        );
    }
    text
}

fn end(report: &Report) -> String {
    let mut text = String::new();
    for example in &report.examples {
        line(&mut text, format_args!("    {example}"));
    }
    match report.verdict {
        Verdict::Kept => {
            let short = |it: &Series| {
                it.trend.as_ref().is_none_or(|trend| trend.verdict == flat::Verdict::TooShort)
            };
            let grows = match report.series.iter().any(short) {
                true => "whether anything grows this run is too short to tell",
                false => "nothing grows",
            };
            line(
                &mut text,
                format_args!(
                    "kept: no failure of ours, every command ended as it should, nothing is left behind, {grows}"
                ),
            );
        }
        Verdict::Broken => {
            text.push_str("broken:\n");
            for reason in &report.reasons {
                line(&mut text, format_args!("- {reason}"));
            }
        }
    }
    text
}

fn cause(loss: Loss) -> &'static str {
    match loss {
        Loss::Ours => "ours",
        Loss::Queued => "ours: waited to be accepted when a generation was killed",
        Loss::DiedWithServer => "accepted by a process that was killed",
        Loss::NobodyServed => {
            "nobody served: the only generation was killed and not yet started anew"
        }
        Loss::Generator => "the clients' own",
    }
}

fn name(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Refused => "refused",
        FailureKind::Unreachable => "unreachable",
        FailureKind::ResetBeforeAccept => "reset in the handshake",
        FailureKind::ResetBeforeFirstByte => "reset before the answer",
        FailureKind::EofBeforeFirstByte => "closed before the answer",
        FailureKind::CutInTheMiddle => "cut in the middle",
        FailureKind::TimedOut => "timed out",
        FailureKind::WrongAnswer => "answered wrongly",
        FailureKind::WrongGeneration => "answered by another generation",
        FailureKind::Moved => "moved to another generation",
        FailureKind::Slow => "slow handshake",
        FailureKind::Local => "not even tried",
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _: std::fmt::Result = writeln!(text, "{line}");
}

/// As `cargo xtask soak` builds the agent; the tests do it otherwise.
const BUILD: &str = if cfg!(debug_assertions) { "development build" } else { "release build" };
