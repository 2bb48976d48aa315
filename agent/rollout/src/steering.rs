//! Where new connections go, and who takes over.

use std::time::Duration;

use agent_ebpf::steering::MAX_STANDBYS;
use agent_terms::GenerationNumber;

use super::{DrainPlan, Effect, Generation, Outcome, Phase, Service, Timestamp};

/// Which generations the kernel may give a new connection to, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Takes them.
    pub primary: GenerationNumber,
    /// Take them if the primary has no listener left; the youngest first, and no more than the kernel can hold. Where nobody
    /// serves, a candidate that listens is the last: connections wait for it instead of being refused.
    pub standbys: Vec<GenerationNumber>,
}

impl Service {
    /// Where new connections should go.
    pub fn targets(&self) -> Option<Targets> {
        let primary = self.primary()?.number;
        let younger_first = self.generations.iter().rev();
        let standbys = younger_first
            .filter(|it| it.can_serve() && it.number != primary)
            .map(|it| it.number)
            .chain(self.stopgap())
            .take(MAX_STANDBYS)
            .collect();
        Some(Targets { primary, standbys })
    }

    /// The candidate, where it listens and nobody serves. That it works is still to be seen.
    pub(super) fn stopgap(&self) -> Option<GenerationNumber> {
        let listens = |it: &&Generation| matches!(it.phase, Phase::Starting { listens: true, .. });
        self.candidate().filter(listens).filter(|_| !self.is_served()).map(|it| it.number)
    }

    /// The youngest replaced generation that can take over.
    pub fn previous(&self) -> Option<GenerationNumber> {
        self.generations.iter().filter(|it| it.can_take_over()).map(|it| it.number).max()
    }

    pub(super) fn steer(&self) -> Vec<Effect> {
        self.targets().map(Effect::Steer).into_iter().collect()
    }

    /// Makes `number` the primary and, with a plan, starts the drain of the live one before, which it returns: until then it
    /// is at least kept.
    pub(super) fn hand_over(
        &mut self,
        number: GenerationNumber,
        drain: Option<(&DrainPlan, Timestamp)>,
        now: Timestamp,
    ) -> Option<GenerationNumber> {
        self.settle_later(number, drain.map_or(now, |(_, kept)| kept), now);
        let mut replaced = None;
        for generation in &mut self.generations {
            if generation.number == number {
                generation.phase = Phase::Primary;
            } else if let (Phase::Primary, Some((drain, kept))) = (&generation.phase, drain) {
                generation.queues_waited = Duration::ZERO;
                generation.phase = Phase::Clearing {
                    until: now.after(generation.queue_patience(drain)),
                    keep_until: now.after(drain.keep_old).max(kept),
                    drain: drain.clone(),
                };
                replaced = Some(generation.number);
            }
        }
        self.generations.retain(|generation| generation.phase != Phase::Dead);
        // Whoever waits for its drain waits in vain: it serves again.
        let reason = format!("generation {number} serves again");
        self.end_rollouts_from(number, &Outcome::RolledBack { reason }, now);
        replaced
    }
}
