//! How much is told: what a server does again and again is told as a number.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use agent_api::EventKind;
use agent_terms::ServiceName;

/// Of what: each service's events of each kind have a budget of their own, and those of the agent itself.
pub(super) type Source = (Option<ServiceName>, EventKind);

/// So many at once, and one more in this time.
const BURST: u32 = 64;
const PER_ONE: Duration = Duration::from_secs(1);

/// What each source may still tell.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    of: BTreeMap<Source, Budget>,
}

#[derive(Debug)]
struct Budget {
    left: u32,
    /// Since when it has grown by nothing.
    counted_from: Instant,
    untold: u64,
}

impl Budgets {
    /// Whether the source may tell one more now. What it may not is counted.
    pub(super) fn admits(&mut self, source: Source, now: Instant) -> bool {
        let full = Budget { left: BURST, counted_from: now, untold: 0 };
        let budget = self.of.entry(source).or_insert(full);
        budget.grow(now);
        // The number comes first: it is of what was before.
        if budget.left == 0 || budget.untold > 0 {
            budget.untold += 1;
            return false;
        }
        budget.left -= 1;
        true
    }

    /// What was not told, of sources that may again.
    pub(super) fn take_untold(&mut self, now: Instant) -> Vec<(Source, u64)> {
        let mut untold = Vec::new();
        for (source, budget) in &mut self.of {
            budget.grow(now);
            if budget.untold > 0 && budget.left > 0 {
                budget.left -= 1;
                untold.push((source.clone(), std::mem::take(&mut budget.untold)));
            }
        }
        self.of.retain(|_, budget| budget.left < BURST || budget.untold > 0);
        untold
    }

    /// When there is something to tell again.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self.of.values().filter(|it| it.untold > 0);
        waiting.map(|it| it.counted_from + PER_ONE).min()
    }
}

impl Budget {
    fn grow(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted_from);
        let grown = u32::try_from(passed.as_secs() / PER_ONE.as_secs()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(grown).min(BURST);
        self.counted_from += PER_ONE.saturating_mul(grown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Source {
        (Some(name.parse().unwrap()), EventKind::Warning)
    }

    #[test]
    fn a_burst_is_told_and_the_rest_is_a_number() {
        let (mut budgets, begin) = (Budgets::default(), Instant::now());
        let told = (0..1000).filter(|_| budgets.admits(source("loud"), begin)).count();
        assert_eq!(told, BURST as usize);
        assert!(budgets.admits(source("other"), begin), "it has a budget of its own");
        assert!(budgets.take_untold(begin).is_empty());
        let later = budgets.next().unwrap();
        assert_eq!(later, begin + PER_ONE);
        assert!(!budgets.admits(source("loud"), later), "the number comes first");
        assert_eq!(budgets.take_untold(later), [(source("loud"), 937)]);
        assert_eq!(budgets.next(), None);
    }

    #[test]
    fn who_was_quiet_for_long_may_tell_as_much_again() {
        let (mut budgets, begin) = (Budgets::default(), Instant::now());
        assert!((0..BURST).all(|_| budgets.admits(source("loud"), begin)));
        let later = begin + PER_ONE * (BURST + 7);
        budgets.take_untold(later);
        assert!(budgets.of.is_empty(), "nothing is kept of it");
        assert!((0..BURST).all(|_| budgets.admits(source("loud"), later)));
        assert!(!budgets.admits(source("loud"), later));
    }
}
