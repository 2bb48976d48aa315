//! Whether each new connection reached a generation that was to get new connections then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use agent_api::RolloutView;
use agent_load::Observation;
use agent_rollout::{Kind, Outcome, RolloutId};

use super::supervisor::Restart;
use super::world::Outage;

/// Which generation was to get the new connections of a service, and from when on.
#[derive(Debug)]
pub(super) struct Meant {
    /// The same instant on both clocks: the agent tells times of day.
    epoch: (Instant, SystemTime),
    rollouts: BTreeMap<RolloutId, RolloutView>,
    /// Of those that were started behind the agent's back, by their numbers.
    restarts: BTreeMap<u32, Restart>,
}

/// A generation was to get new connections from `from` on, and for sure from `sure` on.
#[derive(Clone, Copy, Debug)]
struct Switch {
    from: Instant,
    sure: Instant,
    to: u32,
}

impl Meant {
    pub(super) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the agent tells people the time of day")]
        let now = SystemTime::now();
        let (rollouts, restarts) = Default::default();
        Self { epoch: (Instant::now(), now), rollouts, restarts }
    }

    /// Takes in what the agent remembers. It forgets the oldest.
    pub(super) fn learn(&mut self, rollouts: Vec<RolloutView>, restarts: &[Restart]) {
        self.restarts.extend(restarts.iter().map(|restart| (restart.number, *restart)));
        self.rollouts.extend(rollouts.into_iter().map(|rollout| (rollout.id, rollout)));
    }

    /// The answers of a generation that was not to get the connection. All rollouts must be known that began before the last
    /// of these connections.
    pub(super) fn strays(&self, seen: &[Observation], outages: &[Outage]) -> Vec<Observation> {
        let switches = self.switches(outages);
        seen.iter().filter(|it| !is_meant(&switches, it)).cloned().collect()
    }

    fn switches(&self, outages: &[Outage]) -> Vec<Switch> {
        let mut switches: Vec<Switch> =
            self.rollouts.values().flat_map(|rollout| self.switches_of(rollout)).collect();
        doubt(&mut switches, outages);
        switches.sort_by_key(|switch| switch.from);
        switches
    }

    fn switches_of(&self, rollout: &RolloutView) -> Vec<Switch> {
        let Some(at) = rollout.switched_after.and_then(|it| self.instant(rollout, it)) else {
            return Vec::new();
        };
        let restart = self.restarts.get(&rollout.to.0);
        let there = Switch { from: at, sure: at + SLACK, to: rollout.to.0 };
        let ended = rollout.ended_after.and_then(|it| self.instant(rollout, it));
        match (rollout.kind, rollout.outcome(), ended) {
            // The kernel falls back at the very death, which the agent notes later. An undo is a rollout of its own.
            (Kind::Upgrade, Some(Outcome::RolledBack { reason }), Some(ended))
                if ENDS.iter().any(|end| reason.ends_with(end)) =>
            {
                let back = self.restarts.get(&rollout.from.0).map_or(rollout.from.0, |it| it.told);
                vec![there, Switch { from: at, sure: ended + SLACK, to: back }]
            }
            // It served by the kernel's own lookup before the agent knew of it.
            (Kind::Restart, ..) => {
                let from = restart.map_or(at, |it| it.since);
                let to = restart.map_or(there.to, |it| it.told);
                vec![Switch { from, to, ..there }]
            }
            _ => vec![there],
        }
    }

    fn instant(&self, rollout: &RolloutView, after: Duration) -> Option<Instant> {
        let (instant, time) = self.epoch;
        let at = rollout.began.checked_add(after)?;
        match at.duration_since(time) {
            Ok(since) => Some(instant + since),
            Err(before) => instant.checked_sub(before.duration()),
        }
    }
}

/// An agent that is killed just after it has written a switch down makes it when it is back.
fn doubt(switches: &mut [Switch], outages: &[Outage]) {
    for switch in switches {
        let killed =
            |outage: &&Outage| outage.killed + SLACK >= switch.from && outage.killed <= switch.sure;
        if let Some(outage) = outages.iter().find(killed) {
            let made = outage.back.unwrap_or_else(Instant::now) + SLACK;
            // A death that was noted later than that is in doubt for longer.
            switch.sure = switch.sure.max(made);
        }
    }
}

/// A connection was given away at some instant between its begin and its handshake's end. Any generation is the right one
/// that was to get new connections at any instant in between.
fn is_meant(switches: &[Switch], seen: &Observation) -> bool {
    let Some(generation) = seen.generation else { return true };
    let begun = switches.iter().filter(|switch| switch.from <= seen.connected + SLACK);
    let (sure, maybe): (Vec<&Switch>, Vec<&Switch>) =
        begun.partition(|switch| switch.sure < seen.started);
    // Not the one that was sure last: an earlier one may have waited for an agent for longer.
    let before = sure.into_iter().max_by_key(|switch| (switch.from, switch.sure));
    let newer = |switch: &&Switch| before.is_none_or(|before| switch.from >= before.from);
    before.map_or(FIRST, |before| before.to) == generation
        || maybe.into_iter().filter(newer).any(|switch| switch.to == generation)
}

/// How that ends what the agent says of a generation that took over and then died, seen by its end or by that of its last
/// listener, or accepted nothing: what had waited for that one is served by the one before.
const ENDS: [&str; 3] = ["died", "closed its listener", "accepted no more connections"];
/// The generation that serves before the first switch.
const FIRST: u32 = 1;
/// The agent notes a switch, in whole milliseconds, just before it makes it, and may lose a busy processor in between.
const SLACK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use agent_load::Class;

    use super::*;

    struct Scene {
        begun: Instant,
    }

    impl Scene {
        fn at(&self, milliseconds: u64) -> Instant {
            self.begun + Duration::from_millis(milliseconds)
        }

        fn switch(&self, from: u64, sure: u64, to: u32) -> Switch {
            Switch { from: self.at(from), sure: self.at(sure), to }
        }

        fn seen(&self, started: u64, generation: u32) -> Observation {
            let (started, connected) = (self.at(started), self.at(started + 1));
            let (class, connection) = (Class::OneShot, 0);
            let generation = Some(generation);
            Observation { class, connection, started, connected, answered: connected, generation }
        }
    }

    #[test]
    fn around_a_switch_both_are_meant_and_before_and_after_it_one() {
        let scene = Scene { begun: Instant::now() };
        let switches = [scene.switch(1_000, 1_250, 2), scene.switch(5_000, 5_250, 3)];
        for (started, generation) in [(100, 1), (900, 2), (1_100, 1), (2_000, 2), (5_200, 2)] {
            assert!(is_meant(&switches, &scene.seen(started, generation)), "{started}");
        }
        for (started, generation) in [(100, 2), (1_300, 1), (2_000, 1), (6_000, 2), (5_100, 1)] {
            assert!(!is_meant(&switches, &scene.seen(started, generation)), "{started}");
        }
    }

    #[test]
    fn a_later_switch_counts_although_an_earlier_one_was_in_doubt_for_longer() {
        let scene = Scene { begun: Instant::now() };
        let switches = [scene.switch(1_000, 4_300, 2), scene.switch(4_000, 4_250, 3)];
        for (started, generation) in [(2_000, 1), (2_000, 2), (4_100, 2), (4_280, 3), (5_000, 3)] {
            assert!(is_meant(&switches, &scene.seen(started, generation)), "{started}");
        }
        assert!(!is_meant(&switches, &scene.seen(5_000, 2)));
    }

    #[test]
    fn an_outage_puts_a_switch_in_doubt_for_longer_and_never_for_less() {
        let scene = Scene { begun: Instant::now() };
        let mut switches = [
            scene.switch(1_000, 1_250, 2),
            scene.switch(5_000, 5_250, 3),
            scene.switch(5_000, 9_250, 2),
        ];
        let outage = Outage { killed: scene.at(5_100), back: Some(scene.at(6_000)) };
        doubt(&mut switches, &[outage]);
        let sure = switches.map(|switch| switch.sure);
        assert_eq!(sure, [scene.at(1_250), scene.at(6_250), scene.at(9_250)]);
    }

    #[test]
    fn while_a_generation_may_be_dead_the_one_before_is_meant_too() {
        let scene = Scene { begun: Instant::now() };
        // Generation 3 took over and died, which was noted at 7,000.
        let switches = [
            scene.switch(1_000, 1_250, 2),
            scene.switch(5_000, 5_250, 3),
            scene.switch(5_000, 7_250, 2),
        ];
        for (started, generation) in [(6_000, 2), (6_000, 3), (8_000, 2)] {
            assert!(is_meant(&switches, &scene.seen(started, generation)), "{started}");
        }
        for (started, generation) in [(8_000, 3), (6_000, 1)] {
            assert!(!is_meant(&switches, &scene.seen(started, generation)), "{started}");
        }
    }
}
