//! How times and texts are written for people.

use std::time::Duration;

/// A time span in the unit that says enough.
pub(super) fn span(span: Duration) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    let seconds = span.as_secs_f64();
    if seconds < 9.95 {
        // A tenth matters for a switch, not for an age that is a whole number.
        let text = format!("{seconds:.1}");
        format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
    } else if seconds < 2.0 * MINUTE {
        format!("{seconds:.0} s")
    } else if seconds < 2.0 * HOUR {
        format!("{:.0} min", (seconds / MINUTE).floor())
    } else if seconds < 2.0 * DAY {
        format!("{:.0} h", (seconds / HOUR).floor())
    } else {
        format!("{:.0} d", (seconds / DAY).floor())
    }
}

/// A number and what it counts.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Text on one line, in which nothing steers the terminal: much of what is shown was said by servers.
pub(super) fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || reorders(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// One line of a log, of what has ended it: what steers a terminal in it was escaped when it was formatted, or colours it.
pub(super) fn log_line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}') || reorders(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Whether it makes a terminal show what follows in another order, or on another line: what is read then is not what is there.
const fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same for text that may have lines: those after the first one are indented, so that none looks like one of our own.
pub(super) fn lines(text: &str) -> String {
    text.split('\n').map(line).collect::<Vec<_>>().join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_does_not_turn_the_line_around() {
        assert_eq!(line("a\u{202e}b\u{9b}c"), "a\\u{202e}b\\u{9b}c");
        assert_eq!(line("\u{5d0}\u{3b2}"), "\u{5d0}\u{3b2}");
    }

    #[test]
    fn what_a_server_says_is_no_line_of_its_own() {
        assert_eq!(
            lines("finds nothing at `d\nweb upgraded`"),
            "finds nothing at `d\n    web upgraded`"
        );
    }

    #[test]
    fn what_a_server_says_is_no_line_of_its_own_in_the_log() {
        assert_eq!(log_line("a\nb\r\u{2028}c\u{202e}"), "a\\nb\\r\\u{2028}c\\u{202e}");
        assert_eq!(log_line("\u{1b}[2mdim\u{1b}[0m\tb"), "\u{1b}[2mdim\u{1b}[0m\tb");
    }

    #[test]
    fn a_span_has_the_unit_that_says_enough() {
        let cases = [
            (0.0, "0 s"),
            (0.04, "0 s"),
            (0.25, "0.2 s"),
            (4.0, "4 s"),
            (9.97, "10 s"),
            (119.4, "119 s"),
            (120.0, "2 min"),
            (3599.0, "59 min"),
            (7200.0, "2 h"),
            (200_000.0, "2 d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn nothing_that_a_server_says_steers_the_terminal() {
        assert_eq!(line("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(lines("a\nb\r"), "a\n    b\\r");
    }
}
