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
    /// A version that listens and accepts nothing.
    NeverAccept,
    /// A version that dies with the connections of its first moments.
    CrashAfterSwitch,
    /// A version that gets new connections and accepts none of them.
    StopAccepting,
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
    /// `kill -9` of the only version, and somebody else starts the server anew.
    Restart,
    /// One more worker.
    AddWorker,
    /// `kill -9` of a worker, which its master replaces.
    RecycleWorker,
}

impl Event {
    /// Each once.
    pub(super) const ALL: [Self; 14] = [
        Self::Upgrade,
        Self::ExitAtStart,
        Self::NeverListen,
        Self::NeverAccept,
        Self::CrashAfterSwitch,
        Self::StopAccepting,
        Self::Undo,
        Self::UpgradeDuringDrain,
        Self::KillCandidate,
        Self::KillPrimary,
        Self::KillDraining,
        Self::Restart,
        Self::AddWorker,
        Self::RecycleWorker,
    ];

    /// Whether it takes a server with workers.
    const fn is_of_workers(self) -> bool {
        matches!(self, Self::AddWorker | Self::RecycleWorker)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Upgrade => "upgrade",
            Self::ExitAtStart => "broken version: exits at start",
            Self::NeverListen => "broken version: never listens",
            Self::NeverAccept => "broken version: listens and never accepts",
            Self::CrashAfterSwitch => "broken version: dies after the switch",
            Self::StopAccepting => "broken version: accepts nothing after the switch",
            Self::Undo => "undo during the drain",
            Self::UpgradeDuringDrain => "upgrade during the drain",
            Self::KillCandidate => "kill -9 of the candidate",
            Self::KillPrimary => "kill -9 of the new generation",
            Self::KillDraining => "kill -9 of the old generation",
            Self::Restart => "kill -9 of the only generation, started anew by others",
            Self::AddWorker => "a worker that comes later",
            Self::RecycleWorker => "kill -9 of a worker, replaced by its master",
        })
    }
}

/// Whether a server has workers that come and go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Workers {
    None,
    Some,
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

    /// For a server with workers those that only it can play go first. What nobody could play is not dealt twice.
    pub(super) fn draw(&mut self, workers: Workers) -> Event {
        loop {
            let of_workers = |card: &Event| card.is_of_workers();
            let own = self.cards.iter().position(of_workers).filter(|_| workers == Workers::Some);
            let last = || self.cards.iter().rposition(|card| !of_workers(card));
            if let Some(place) = own.or_else(last) {
                return self.cards.remove(place);
            }
            self.cards = Event::ALL.to_vec();
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
            let mut dealt = Event::ALL.map(|_| deck.draw(Workers::Some));
            dealt.sort();
            assert_eq!(dealt, Event::ALL);
        }
    }

    #[test]
    fn who_has_no_workers_gets_all_the_others() {
        let mut deck = Deck::shuffled(7);
        for _ in 0..3 {
            let dealt = [(); 12].map(|()| deck.draw(Workers::None));
            assert!(Event::ALL.iter().all(|it| it.is_of_workers() || dealt.contains(it)));
        }
        assert!([(); 2].map(|()| deck.draw(Workers::Some)).iter().all(|it| it.is_of_workers()));
    }

    #[test]
    fn a_seed_repeats_the_order() {
        let order = |seed| {
            let mut deck = Deck::shuffled(seed);
            [(); 20].map(|()| deck.draw(Workers::Some))
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
