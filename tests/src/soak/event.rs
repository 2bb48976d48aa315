//! What is done to a service, in an order that nobody foresees and that a seed repeats.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is done to a service.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A good version, to the end of the drain.
    Upgrade,
    /// A version that ends before it listens.
    ExitAtStart,
    /// A version that lives and does not listen.
    NeverListen,
    /// A version that dies with the connections of its first moments.
    CrashAfterSwitch,
    /// A good version that is taken back while the old one drains.
    Undo,
    /// A good version, and another one while the first one's predecessor drains.
    UpgradeDuringDrain,
    /// `kill -9` of a version that does not listen yet.
    KillCandidate,
    /// `kill -9` of the new version while the old one drains.
    KillPrimary,
    /// `kill -9` of the old version while it drains.
    KillDraining,
}

impl Event {
    /// Each once.
    pub(super) const ALL: [Self; 9] = [
        Self::Upgrade,
        Self::ExitAtStart,
        Self::NeverListen,
        Self::CrashAfterSwitch,
        Self::Undo,
        Self::UpgradeDuringDrain,
        Self::KillCandidate,
        Self::KillPrimary,
        Self::KillDraining,
    ];
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Upgrade => "upgrade",
            Self::ExitAtStart => "broken version: exits at start",
            Self::NeverListen => "broken version: never listens",
            Self::CrashAfterSwitch => "broken version: dies after the switch",
            Self::Undo => "undo during the drain",
            Self::UpgradeDuringDrain => "upgrade during the drain",
            Self::KillCandidate => "kill -9 of the candidate",
            Self::KillPrimary => "kill -9 of the new generation",
            Self::KillDraining => "kill -9 of the old generation",
        })
    }
}

/// Deals events like cards: each comes once before any comes again, so that a short run has all of them too.
#[derive(Debug)]
pub(super) struct Deck {
    random: fastrand::Rng,
    cards: Vec<Event>,
}

impl Deck {
    pub(super) fn shuffled(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), cards: Vec::new() }
    }

    pub(super) fn draw(&mut self) -> Event {
        loop {
            if let Some(card) = self.cards.pop() {
                return card;
            }
            self.cards.extend(Event::ALL);
            self.random.shuffle(&mut self.cards);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_comes_once_before_any_comes_again() {
        let mut deck = Deck::shuffled(7);
        for _ in 0..3 {
            let mut dealt = Event::ALL.map(|_| deck.draw());
            dealt.sort();
            assert_eq!(dealt, Event::ALL);
        }
    }

    #[test]
    fn a_seed_repeats_the_order() {
        let order = |seed| {
            let mut deck = Deck::shuffled(seed);
            [(); 20].map(|()| deck.draw())
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
