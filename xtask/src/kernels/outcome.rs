//! What came of a row: the guest's last line, and what it means when there is none.

use std::{fmt, time::Duration};

use serde::Deserialize;

use super::matrix::Expected;

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As expected.
    Kept(Expected),
    /// Otherwise; in a few words.
    Failed(String),
    /// The machine did not end in time; with the last thing that it told.
    Froze(String),
    /// The machine never ran, and why.
    Gap(String),
}

impl Outcome {
    /// Whether the run has failed by it. A gap is none of the agent's.
    pub(super) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Froze(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(Expected::Served) => formatter.write_str("served"),
            Self::Kept(Expected::Refused) => formatter.write_str("refused, as it has to be"),
            Self::Failed(words) => write!(formatter, "failed: {words}"),
            Self::Froze(words) => write!(formatter, "froze: {words}"),
            Self::Gap(words) => write!(formatter, "gap: {words}"),
        }
    }
}

/// What the guest counted, as it says in its last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Counted {
    /// New connections of clients.
    pub(super) connections: u64,
    /// Of all kinds that a client can see.
    pub(super) failures: u64,
    /// Connections that nobody had accepted when their server was killed.
    pub(super) queued: u64,
    /// Of those, the ones that another server answered.
    pub(super) saved: u64,
    /// What is wrong, in a few words each; nothing if all is well.
    pub(super) wrong: Vec<String>,
}

/// Finds the guest's last line in all that it told.
pub(super) fn read(told: &str) -> Option<Counted> {
    let line = told.lines().rev().find_map(|line| line.trim().strip_prefix(MARK))?;
    serde_json::from_str(line.trim()).ok()
}

/// Judges a machine that has ended by itself.
pub(super) fn judge(expected: Expected, told: &str, console: &str) -> (Outcome, Counted) {
    match read(told) {
        None => {
            let words = format!("it ended without a result {}", last(told, console));
            (Outcome::Failed(words), Counted::default())
        }
        Some(counted) if counted.wrong.is_empty() => (Outcome::Kept(expected), counted),
        Some(counted) => (Outcome::Failed(counted.wrong.join("; ")), counted),
    }
}

/// What came of a machine that was ended after a time in which it told nothing.
pub(super) fn frozen(after: Duration, told: &str, console: &str) -> Outcome {
    Outcome::Froze(format!("ended after {} s, silent {}", after.as_secs(), last(told, console)))
}

/// The last thing that a machine told before it could tell no more, and what its kernel says of that.
fn last(told: &str, console: &str) -> String {
    let last = told.lines().map(str::trim).rfind(|line| !line.is_empty());
    let last = last.map_or("from the beginning".to_owned(), |line| format!("after `{line}`"));
    let trouble = console.lines().find(|line| TROUBLE.iter().any(|word| line.contains(word)));
    trouble.map_or_else(|| last.clone(), |line| format!("{last}; its kernel: `{}`", line.trim()))
}

/// In the kernel's words.
const TROUBLE: [&str; 6] = ["BUG", "Oops", "WARNING", "Kernel panic", "stall", "lockup"];

/// What the guest's last line begins with.
const MARK: &str = "RESULT ";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Counted, Expected, Outcome, frozen, judge, read};

    const WELL: &str = "booted\r\nagent doctor: exit code 0, 0.5 s\r\n\
        RESULT {\"connections\":972,\"failures\":0,\"queued\":8,\"saved\":8,\"wrong\":[]}\r\n";

    #[test]
    fn the_last_line_is_found_as_a_serial_port_delivers_it() {
        let counted = read(WELL).unwrap();
        assert_eq!(
            counted,
            Counted { connections: 972, failures: 0, queued: 8, saved: 8, wrong: vec![] }
        );
        assert_eq!(judge(Expected::Served, WELL, "").0, Outcome::Kept(Expected::Served));
    }

    #[test]
    fn what_is_wrong_is_told_in_the_words_of_the_guest() {
        let told = WELL.replace("[]", "[\"undo: exit code 1\",\"3 failures\"]");
        let (outcome, counted) = judge(Expected::Served, &told, "");
        assert_eq!(outcome, Outcome::Failed("undo: exit code 1; 3 failures".to_owned()));
        assert_eq!(counted.connections, 972);
    }

    #[test]
    fn a_machine_that_ends_early_has_failed_after_its_last_words() {
        let (outcome, counted) = judge(Expected::Refused, "booted\n\n", "");
        assert_eq!(outcome, Outcome::Failed("it ended without a result after `booted`".to_owned()));
        assert_eq!(counted, Counted::default());
        assert!(outcome.is_failure());
    }

    #[test]
    fn a_machine_that_freezes_is_told_of_with_what_its_kernel_says() {
        let outcome = frozen(
            Duration::from_secs(120),
            " \n",
            "[ 9.1] rcu: self-detected stall\r\n[ 9.2] more",
        );
        assert_eq!(
            outcome.to_string(),
            "froze: ended after 120 s, silent from the beginning; its kernel: `[ 9.1] rcu: self-detected stall`"
        );
        assert!(outcome.is_failure());
    }

    #[test]
    fn half_a_line_is_none() {
        assert_eq!(read("RESULT {\"connections\":972,"), None);
    }
}
