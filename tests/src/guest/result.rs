//! What the machine tells in its last line.

use serde::Serialize;

/// What was counted, and what is wrong. `xtask/src/kernels/outcome.rs` reads it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Counted {
    /// New connections of clients.
    pub(super) connections: u64,
    /// Of all kinds that a client can see.
    pub(super) failures: u64,
    /// Connections that nobody had accepted when their server was killed.
    pub(super) queued: u64,
    /// Of those, the ones that another server answered.
    pub(super) saved: u64,
    /// In a few words each.
    pub(super) wrong: Vec<String>,
}

impl Counted {
    /// Notes what is wrong, and lets the rest go on.
    pub(super) fn wrong(&mut self, words: impl Into<String>) {
        self.wrong.push(words.into());
    }

    /// As it is told.
    pub(super) fn line(&self) -> String {
        let json = serde_json::to_string(self).expect("numbers and texts can be written");
        format!("{MARK} {json}")
    }
}

/// What the last line begins with.
pub(super) const MARK: &str = "RESULT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_wrong_fits_into_one_line() {
        let mut counted = Counted::default();
        counted.wrong("two\nlines");
        assert_eq!(
            counted.line(),
            r#"RESULT {"connections":0,"failures":0,"queued":0,"saved":0,"wrong":["two\nlines"]}"#
        );
    }
}
