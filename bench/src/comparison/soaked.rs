//! What goes wrong, on purpose: a soak, of which the numbers are kept beside the comparison.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::interrupt::Interrupt;
use crate::measure::grouped;
use crate::measure::targets::{Target, Verdict};
use crate::soak::{Event, Loss};

/// Of a soak's numbers, those that targets are about. The names are the soak's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Soaked {
    seed: u64,
    lasted_seconds: f64,
    /// By client class.
    classes: BTreeMap<String, Clients>,
    /// By kind of failure.
    losses: BTreeMap<Loss, BTreeMap<String, u64>>,
    /// Connections that reached a generation that was not to get them.
    strays: u64,
    agent_kills: u64,
    counts: BTreeMap<Event, u64>,
    /// Why it is broken, if it is.
    reasons: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Clients {
    connections: u64,
}

/// For a comparison of so many rounds; none for a quick one.
pub(super) const fn minutes(rounds: u32) -> Option<u32> {
    match rounds {
        0 | 1 => None,
        // Of these the agent is killed in the first half, about every five seconds.
        rounds => Some(rounds * 6 / 5),
    }
}

/// Soaks, with what is built beside this program, and keeps what it finds.
///
/// # Errors
///
/// If the soak could not be made, or was interrupted: what was kept of the one before stays then. A broken promise is no
/// error.
pub(super) fn run(minutes: u32, file: &Path, interrupt: &Interrupt) -> Result<Soaked> {
    let program = std::env::current_exe()?.with_file_name("soak");
    let whole = program.with_extension("json");
    if whole.exists() {
        fs::remove_file(&whole).with_context(|| format!("remove `{}`", whole.display()))?;
    }
    let status = Command::new(&program)
        .args([format!("{minutes}min"), fastrand::u32(..).to_string()])
        .arg(&whole)
        .stdout(io::stderr())
        .status()
        .with_context(|| format!("start `{}`", program.display()))?;
    interrupt.check()?;
    ensure!(whole.exists(), "`{}` ended without a result: {status}", program.display());
    let soaked = read(&whole)?;
    let text = serde_json::to_string_pretty(&soaked)?;
    fs::write(file, text + "\n").with_context(|| format!("write `{}`", file.display()))?;
    Ok(soaked)
}

/// What was found.
///
/// # Errors
///
/// If the file cannot be read or is not what [`run`] writes.
pub(super) fn read(file: &Path) -> Result<Soaked> {
    let text = fs::read(file).with_context(|| format!("read `{}`", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("understand `{}`", file.display()))
}

impl Soaked {
    /// As people read it.
    pub(super) fn markdown(&self) -> String {
        let mut text = "| what was done | times |\n| --- | ---: |\n".to_owned();
        for (event, count) in &self.counts {
            text.push_str(&format!("| {event} | {} |\n", grouped(*count)));
        }
        text.push_str(&format!("| kill -9 of the agent | {} |\n", grouped(self.agent_kills)));
        text.push_str(&format!(
            "\n{} in {:.0} minutes (seed {}): {} connections, of which {} failed, and {} more ended with the process that was \
             killed after it had accepted them; {} reached a generation that was not to get them.\n",
            if self.reasons.is_empty() { "All ended as it should" } else { "Not all ended as it should" },
            self.lasted_seconds / 60.0,
            self.seed,
            grouped(self.connections()),
            grouped(self.failures()),
            grouped(self.lost(Loss::DiedWithServer)),
            grouped(self.strays),
        ));
        for reason in &self.reasons {
            text.push_str(&format!("- {reason}\n"));
        }
        text
    }

    /// What was aimed at for a killed agent and for broken versions.
    pub(super) fn targets(&self) -> [Target; 2] {
        let of = |event| self.counts.get(&event).copied().unwrap_or(0);
        let lost =
            format!("{} of {} connections failed", self.failures(), grouped(self.connections()));
        let broken = [Event::ExitAtStart, Event::NeverListen, Event::CrashAfterSwitch].map(of);
        [
            Target {
                number: 12,
                what: KILLED,
                wanted: KILLED_WANTED,
                measured: format!(
                    "{} times at random: {lost}; before and after each step once: `tests/tests/faults`",
                    self.agent_kills
                ),
                verdict: self
                    .judged(KILLS.saturating_sub(self.agent_kills), "kills that were not made"),
            },
            Target {
                number: 13,
                what: BROKEN,
                wanted: BROKEN_WANTED,
                measured: format!(
                    "{} that exit at start, {} that never listen, {} that die after the switch: {lost}",
                    broken[0], broken[1], broken[2]
                ),
                verdict: self.judged(
                    broken.iter().filter(|count| **count == 0).count() as u64,
                    "kinds that did not come",
                ),
            },
        ]
    }

    fn judged(&self, missing: u64, of: &str) -> Verdict {
        let reasons = self.reasons.iter().cloned().map(Some);
        Verdict::of(reasons.chain([(missing > 0).then(|| format!("{missing} {of}"))]))
    }

    fn connections(&self) -> u64 {
        self.classes.values().map(|class| class.connections).sum()
    }

    fn failures(&self) -> u64 {
        self.lost(Loss::Ours) + self.lost(Loss::Queued)
    }

    fn lost(&self, loss: Loss) -> u64 {
        self.losses.get(&loss).map_or(0, |kinds| kinds.values().sum())
    }
}

/// The same where no soak was made.
pub(super) fn unmeasured() -> [Target; 2] {
    let target = |number, what, wanted| Target {
        number,
        what,
        wanted,
        measured: "not in this run; see [soak](soak.md)".to_owned(),
        verdict: Verdict::Stated,
    };
    [target(12, KILLED, KILLED_WANTED), target(13, BROKEN, BROKEN_WANTED)]
}

const KILLS: u64 = 100;
const KILLED: &str = "agent killed";
const KILLED_WANTED: &str = "0 failed connections, the rollout completed or undone, 100 times";
const BROKEN: &str = "broken new version";
const BROKEN_WANTED: &str = "0 failed connections, the old one serves, exit code 5 or 8";

#[cfg(test)]
mod tests {
    use super::*;

    fn soaked(kills: u64, failed: u64) -> Soaked {
        let of = |event| (event, 7);
        let broken = [Event::ExitAtStart, Event::NeverListen, Event::CrashAfterSwitch];
        Soaked {
            seed: 1,
            lasted_seconds: 60.0,
            classes: BTreeMap::from([("one_shot".to_owned(), Clients { connections: 1_000 })]),
            losses: BTreeMap::from([(
                Loss::Ours,
                BTreeMap::from([("refused".to_owned(), failed)]),
            )]),
            strays: 0,
            agent_kills: kills,
            counts: broken.map(of).into(),
            reasons: (failed > 0).then(|| format!("{failed} failures")).into_iter().collect(),
        }
    }

    #[test]
    fn a_target_is_met_only_by_a_soak_that_kept_all_and_did_all() {
        let verdicts = |soaked: Soaked| soaked.targets().map(|target| target.verdict.shown());
        assert_eq!(verdicts(soaked(100, 0)), ["met", "met"]);
        assert_eq!(verdicts(soaked(60, 0)), ["**missed** by 40 kills that were not made", "met"]);
        let [killed, broken] = verdicts(soaked(100, 2));
        assert_eq!([&killed, &broken], ["**missed** by 2 failures"; 2]);
    }

    #[test]
    fn the_text_says_what_failed() {
        let text = soaked(100, 2).markdown();
        assert!(text.contains("1,000 connections, of which 2 failed"), "{text}");
        assert!(text.contains("Not all ended"), "{text}");
    }
}
