//! What was decided and is not done yet.

use std::collections::{BTreeMap, VecDeque};

use agent_rollout::Effect;
use agent_terms::ServiceId;

/// Effects in order, those of each service by themselves: one that cannot be done keeps no other service waiting.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Outstanding {
    of: BTreeMap<ServiceId, VecDeque<Effect>>,
}

impl Outstanding {
    /// To be done after those that are there already. Only a switch waits for nothing, and only the newest one counts: it leads
    /// to nobody whom anything earlier takes away.
    pub(in crate::daemon) fn add(
        &mut self,
        id: ServiceId,
        effects: impl IntoIterator<Item = Effect>,
    ) {
        for effect in effects {
            let queue = self.of.entry(id).or_default();
            if is_steer(&effect) {
                queue.retain(|it| !is_steer(it));
                queue.push_front(effect);
            } else {
                queue.push_back(effect);
            }
        }
    }

    /// The services that wait for something.
    pub(in crate::daemon) fn services(&self) -> Vec<ServiceId> {
        self.of.keys().copied().collect()
    }

    /// Takes out the next one that may be done now.
    pub(in crate::daemon) fn take(
        &mut self,
        id: ServiceId,
        may_be_done: impl Fn(&Effect) -> bool,
    ) -> Option<Effect> {
        let queue = self.of.get_mut(&id)?;
        let next = queue.iter().position(may_be_done)?;
        let effect = queue.remove(next);
        if queue.is_empty() {
            self.of.remove(&id);
        }
        effect
    }

    /// One that could not be done is the next again: what follows may rest on it.
    pub(in crate::daemon) fn put_back(&mut self, id: ServiceId, effect: Effect) {
        let queue = self.of.entry(id).or_default();
        // A switch that was decided meanwhile takes its place.
        if !(is_steer(&effect) && queue.iter().any(is_steer)) {
            queue.push_front(effect);
        }
    }

    /// Whether the kernel has not taken the newest switch yet.
    pub(in crate::daemon) fn has_switch(&self, id: ServiceId) -> bool {
        self.of.get(&id).is_some_and(|queue| queue.iter().any(is_steer))
    }

    /// Whether a service waits for anything.
    pub(in crate::daemon) fn has_any(&self, id: ServiceId) -> bool {
        self.of.contains_key(&id)
    }

    /// Whether nobody waits for anything.
    pub(in crate::daemon) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Forgets what a service that is detached waited for.
    pub(in crate::daemon) fn forget(&mut self, id: ServiceId) {
        self.of.remove(&id);
    }
}

const fn is_steer(effect: &Effect) -> bool {
    matches!(effect, Effect::Steer(_))
}

#[cfg(test)]
mod tests {
    use agent_rollout::Targets;
    use agent_terms::GenerationNumber;

    use super::*;

    const ONE: ServiceId = ServiceId(1);
    const OTHER: ServiceId = ServiceId(2);

    const fn kill(number: u32) -> Effect {
        Effect::Kill(GenerationNumber(number))
    }

    fn steer(number: u32) -> Effect {
        Effect::Steer(Targets { primary: GenerationNumber(number), standbys: Vec::new() })
    }

    fn taken(outstanding: &mut Outstanding, id: ServiceId) -> Vec<Effect> {
        std::iter::from_fn(|| outstanding.take(id, |_| true)).collect()
    }

    #[test]
    fn each_service_has_its_own_order() {
        let mut outstanding = Outstanding::default();
        outstanding.add(ONE, [kill(1), kill(2)]);
        outstanding.add(OTHER, [kill(3)]);
        let failed = outstanding.take(ONE, |_| true).unwrap();
        outstanding.put_back(ONE, failed);
        assert_eq!(taken(&mut outstanding, OTHER), [kill(3)]);
        assert_eq!(outstanding.services(), [ONE]);
        assert_eq!(taken(&mut outstanding, ONE), [kill(1), kill(2)]);
        assert!(outstanding.is_empty());
    }

    #[test]
    fn the_newest_switch_goes_first_and_alone() {
        let mut outstanding = Outstanding::default();
        outstanding.add(ONE, [kill(1), steer(2)]);
        let failed = outstanding.take(ONE, |_| true).unwrap();
        assert_eq!(failed, steer(2));
        outstanding.add(ONE, [steer(3)]);
        outstanding.put_back(ONE, failed);
        assert!(outstanding.has_switch(ONE));
        assert_eq!(taken(&mut outstanding, ONE), [steer(3), kill(1)]);
    }

    #[test]
    fn what_must_wait_is_passed_over() {
        let mut outstanding = Outstanding::default();
        outstanding.add(ONE, [kill(1), kill(2)]);
        assert_eq!(outstanding.take(ONE, |it| *it == kill(2)), Some(kill(2)));
        assert_eq!(outstanding.take(ONE, |it| *it == kill(2)), None);
        assert_eq!(taken(&mut outstanding, ONE), [kill(1)]);
    }
}
