//! `cargo xtask bench`: what upgrades cost, for us and for other ways, on this machine.

use std::path::Path;

use anyhow::Result;

use crate::{program, setup};

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) again: bool,
    pub(crate) only: Vec<String>,
}

/// Compares the agent.
///
/// # Errors
///
/// As [`program::take_over`].
pub(crate) fn run(root: &Path, choice: &Choice) -> Result<()> {
    let install = |root: &Path| match choice.again {
        true => Ok(()),
        false => setup::for_bench(root),
    };
    let whole = !choice.quick && choice.only.is_empty();
    program::take_over(root, "bench", install, |bench| {
        bench
            .arg(choice.turns().to_string())
            .arg(root.join(if whole { "docs" } else { "target/bench" }))
            .arg(choice.typed())
            .args(&choice.only);
    })
}

impl Choice {
    /// How many rounds; none to use those that were made.
    fn turns(&self) -> u32 {
        match (self.again, self.quick) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => self.rounds,
        }
    }

    /// As one would type it.
    fn typed(&self) -> String {
        let mut typed = "cargo xtask bench".to_owned();
        if self.quick {
            typed.push_str(" --quick");
        } else {
            typed.push_str(&format!(" --rounds {}", self.rounds));
        }
        if !self.only.is_empty() {
            typed.push_str(&format!(" --only {}", self.only.join(",")));
        }
        typed
    }
}
