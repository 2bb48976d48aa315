//! After a restart: which of the effects of the last decisions are still to be executed.
//!
//! What was decided is written down before it is executed, so that a crash may have come before an effect, after it, or in
//! between. The world is asked. None is repeated that was done:
//!
//! - `Steer` shows in the map.
//! - `Signal` is written down when it was sent ([`Event::Told`](super::Event::Told)). A crash between the two leaves a
//!   generation that was told and is not known to be: but a server that got its signal closes its listeners first, so that
//!   one that still listens was not told. One that does not listen is not told again, because a second signal makes many
//!   servers quit at once and cut flows. If it was not told at all (it had closed its listener before, or is a candidate
//!   that never had one), it is killed when its time is up, and that is all that the lost signal costs: a patient drain has
//!   left it no flow.
//! - `Kill` is for processes that live.
//! - `Forget` shows in the maps: they know a generation that the service does not.
//! - A number that the maps know and the service does not was given to a server that somebody else had started anew, and that
//!   was not written down. It is not given again: what is to be forgotten would be the next one's.
//! - `Launch` is never repeated; its outcome is looked up as of any candidate.

use std::collections::BTreeSet;

use agent_terms::GenerationNumber;

use super::{Effect, Phase, Service, Stop, Targets, Timestamp};

/// What the world shows of a service after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where the kernel steers to.
    pub steering: Option<Targets>,
    /// The generations that have a listener.
    pub listening: BTreeSet<GenerationNumber>,
    /// The generations that have a process.
    pub alive: BTreeSet<GenerationNumber>,
    /// The generations that the maps know.
    pub mapped: BTreeSet<GenerationNumber>,
}

impl Service {
    /// What was decided and has not been done. Of those that are not told any more the time to end runs; for those that have to
    /// prove themselves it begins anew.
    pub fn resume(&mut self, seen: &Seen, now: Timestamp) -> Vec<Effect> {
        self.settle_anew(now);
        let steer = self.targets().filter(|meant| seen.steering.as_ref() != Some(meant));
        let mut effects: Vec<_> = steer.map(Effect::Steer).into_iter().collect();
        for generation in &mut self.generations {
            let number = generation.number;
            match generation.phase {
                Phase::Stopping { stop: Stop::Killed { .. }, .. } => {
                    if seen.alive.contains(&number) {
                        effects.push(Effect::Kill(number));
                    }
                }
                Phase::Stopping {
                    stop: Stop::ToSignal { kill_at },
                    signal,
                    patience,
                    flows_left,
                } => {
                    if seen.listening.contains(&number) {
                        effects.push(Effect::Signal(number, signal));
                    } else {
                        let stop = Stop::Signalled { kill_at };
                        generation.phase = Phase::Stopping { stop, signal, patience, flows_left };
                    }
                }
                Phase::Finishing { deadline, signal, told: false } => {
                    if seen.listening.contains(&number) {
                        effects.push(Effect::Signal(number, signal));
                    } else {
                        generation.phase = Phase::Finishing { deadline, signal, told: true };
                    }
                }
                Phase::Stopping { stop: Stop::Signalled { .. }, .. }
                | Phase::Finishing { told: true, .. }
                | Phase::Starting { .. }
                | Phase::Primary
                | Phase::Dead
                | Phase::Clearing { .. }
                | Phase::Draining { .. }
                | Phase::Standby { .. }
                | Phase::Parting { .. } => {}
            }
        }
        let forgotten = seen.mapped.iter().filter(|number| self.generation(**number).is_none());
        effects.extend(forgotten.copied().map(Effect::Forget));
        let given = seen.mapped.iter().filter(|number| self.may_have_given(**number)).max();
        self.last_generation =
            given.map_or(self.last_generation, |last| self.last_generation.max(*last));
        effects
    }

    /// Whether a number that the maps know can be one of ours. Somebody else may have written another one there, and the next
    /// generation's must not come after that.
    fn may_have_given(&self, number: GenerationNumber) -> bool {
        const AT_MOST: u32 = 1 << 10;
        number.0 <= self.last_generation.0.saturating_add(AT_MOST)
    }
}
