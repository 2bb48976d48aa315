//! A signal, as people name it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A signal that the kernel knows, by its number; also a real-time one, as servers use them for their own commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "i32", into = "i32")]
pub struct Signal(i32);

/// Nothing that the kernel knows as a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no signal: give a name such as `TERM` or `RTMIN+3`, or a number from 1 to 64")]
pub struct NoSignal(String);

impl Signal {
    /// The polite request to end.
    pub const TERM: Self = Self(15);

    /// Its number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for Signal {
    type Error = NoSignal;

    fn try_from(number: i32) -> Result<Self, NoSignal> {
        // `_NSIG` of x86-64 and aarch64.
        const LAST: i32 = 64;
        match (1..=LAST).contains(&number) {
            true => Ok(Self(number)),
            false => Err(NoSignal(number.to_string())),
        }
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = NoSignal;

    fn from_str(text: &str) -> Result<Self, NoSignal> {
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match short.parse() {
            Ok(number) if short.starts_with(|it: char| it.is_ascii_digit()) => Some(number),
            Ok(_) | Err(_) => real_time(short).or_else(|| named(short)),
        };
        number.and_then(|it| Self::try_from(it).ok()).ok_or_else(|| NoSignal(text.to_owned()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn named(short: &str) -> Option<i32> {
    let signal: nix::sys::signal::Signal = format!("SIG{short}").parse().ok()?;
    Some(signal as i32)
}

/// As `kill -l` names them: glibc keeps the first two of the kernel's real-time signals for itself.
fn real_time(short: &str) -> Option<i32> {
    const FIRST: i32 = 34;
    const LAST: i32 = 64;
    let number = match (short.strip_prefix("RTMIN"), short.strip_prefix("RTMAX")) {
        (Some(""), _) => FIRST,
        (_, Some("")) => LAST,
        (Some(more), _) => FIRST.checked_add(more.strip_prefix('+')?.parse().ok()?)?,
        (_, Some(less)) => LAST.checked_sub(less.strip_prefix('-')?.parse().ok()?)?,
        (None, None) => return None,
    };
    (FIRST..=LAST).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_with_or_without_its_prefix_or_a_number() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        for (text, number) in
            [("QUIT", 3), ("34", 34), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("rtmax-1", 63)]
        {
            assert_eq!(text.parse(), Ok(Signal(number)), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "", "0", "65", "-1", "+1", "STOPP", "15x", "RTMIN+31", "RTMAX-31", "RTMIN-1",
            "RTMIN+-1",
        ] {
            assert_eq!(text.parse::<Signal>(), Err(NoSignal(text.to_owned())), "{text}");
        }
        for json in ["0", "65", "-9"] {
            assert!(serde_json::from_str::<Signal>(json).is_err(), "{json}");
        }
        assert_eq!(serde_json::to_string(&Signal::TERM).unwrap(), "15");
    }
}
