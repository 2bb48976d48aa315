//! A generation dies, or lives on without a listener.

use agent_terms::GenerationNumber;

use super::{Effect, Outcome, Phase, Service, Timestamp};

impl Service {
    pub(super) fn note_exit(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(generation) = self.generation(number) else { return Vec::new() };
        let flows = generation.flows;
        match generation.phase.clone() {
            Phase::Starting { obstacle, listens, .. } => {
                let reason = match listens {
                    true => "it listened, but exited before it accepted a connection",
                    false => "it exited before it was ready",
                };
                let reason = explained(reason, obstacle.as_deref());
                self.end_rollouts_to(number, &Outcome::NotReady { reason }, now);
                self.remove(number)
            }
            Phase::Primary => self.replace_dead_primary(number, now),
            Phase::Dead => Vec::new(),
            Phase::Clearing { .. } | Phase::Draining { .. } | Phase::Standby { .. } => {
                self.note_old_died(number, flows, now);
                self.steer_without(number)
            }
            Phase::Parting { .. } if flows > 0 => {
                self.end_rollouts_from(number, &Outcome::OldDied { flows }, now);
                self.remove(number)
            }
            Phase::Parting { .. } | Phase::Finishing { .. } => {
                self.end_rollouts_from(number, &Outcome::Completed, now);
                self.remove(number)
            }
            Phase::Stopping { flows_left, .. } => {
                let outcome = if flows_left == 0 {
                    Outcome::Completed
                } else {
                    Outcome::DeadlinePassed { flows_left }
                };
                self.end_rollouts_from(number, &outcome, now);
                self.remove(number)
            }
        }
    }

    /// The kernel has fallen back already, on the first packet that found no listener; this makes it official.
    fn replace_dead_primary(&mut self, number: GenerationNumber, now: Timestamp) -> Vec<Effect> {
        let Some(previous) = self.previous() else {
            if let Some(dead) = self.generation_mut(number) {
                dead.phase = Phase::Dead;
            }
            self.end_rollouts_to(number, &Outcome::NewDied, now);
            return Vec::new();
        };
        self.take_back(number, format!("generation {number} died"), now);
        self.hand_over(previous, None, now);
        self.steer_without(number)
    }

    /// Of a replaced generation that is no news: servers that finish by themselves close their listeners first. A standby may
    /// open it again as long as it is kept. A primary is replaced as if it had died, but it has flows: it leaves as it would have let the other
    /// one leave.
    pub(super) fn note_deafness(
        &mut self,
        number: GenerationNumber,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(generation) = self.generation_mut(number) else { return Vec::new() };
        match generation.phase {
            Phase::Starting { .. } | Phase::Dead => return Vec::new(),
            Phase::Clearing { .. }
            | Phase::Draining { .. }
            | Phase::Standby { .. }
            | Phase::Parting { .. }
            | Phase::Finishing { .. }
            | Phase::Stopping { .. } => {
                generation.deaf = true;
                return Vec::new();
            }
            Phase::Primary => generation.deaf = true,
        }
        self.go_back(number, format!("generation {number} closed its listener"), now)
    }

    pub(super) fn note_listening(&mut self, number: GenerationNumber) -> Vec<Effect> {
        if let Some(generation) = self.generation_mut(number) {
            generation.deaf = false;
        }
        Vec::new()
    }
}

/// A reason, with what is known about it.
pub(super) fn explained(reason: &str, obstacle: Option<&str>) -> String {
    obstacle.map_or_else(|| reason.to_owned(), |obstacle| format!("{reason}: {obstacle}"))
}
