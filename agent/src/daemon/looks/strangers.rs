//! When to look at listeners on our ports that are nobody's, and whom people were told of.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use agent_terms::ServiceId;

/// Listeners on our ports that are nobody's.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Strangers {
    /// When to look at those of a service again.
    due: HashMap<ServiceId, Due>,
    /// The cookies of those that people were told of.
    told: HashMap<ServiceId, HashSet<u64>>,
    /// Those who have the connections of a service that nobody of it serves.
    usurpers: HashMap<ServiceId, Usurpers>,
    /// When people were told last of those who listen beside a service that is served.
    told_of_rivals: HashMap<ServiceId, Instant>,
}

/// Since when they listen, as far as was seen, and when people were told last.
#[derive(Clone, Copy, Debug, Default)]
struct Usurpers {
    since: Option<Instant>,
    told: Option<Instant>,
}

/// A look that is to be made, and how long after it the next one would be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    at: Instant,
    then: Duration,
}

/// Between two looks at a listener that is nobody's yet, first and at most: one look reads the descriptors of all processes.
const SOON: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(30);

impl Strangers {
    /// When the next look is due.
    pub(in crate::daemon) fn next_look(&self) -> Option<Instant> {
        self.due.values().map(|it| it.at).min()
    }

    /// Has those of a service looked at then.
    pub(in crate::daemon) fn look_at(&mut self, service: ServiceId, when: Instant) {
        self.due.insert(service, Due { at: when, then: SOON });
    }

    /// Those whose look is due, which is made now. If it is of no avail, the next one comes later.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(ServiceId, Due)> {
        self.due.extract_if(|_, due| due.at <= now).collect()
    }

    /// Has those of a service looked at again, less and less often, unless a look is due anyhow.
    pub(super) fn look_again(&mut self, service: ServiceId, last: Due) {
        let next = Due { at: Instant::now() + last.then, then: SELDOM.min(last.then * 2) };
        self.due.entry(service).or_insert(next);
    }

    /// Whether people are to be told of whoever serves in place of a service: not of one that may just become the service's own,
    /// and not of each one that comes and goes.
    pub(super) fn are_told_of_usurpers(&mut self, service: ServiceId, now: Instant) -> bool {
        let known = self.usurpers.entry(service).or_default();
        let since = *known.since.get_or_insert(now);
        let are_told = now >= since + SOON && known.told.is_none_or(|told| now >= told + SELDOM);
        if are_told {
            known.told = Some(now);
        }
        are_told
    }

    /// The same of who listens beside it where it is served. If the time has not come, there is a look when it has.
    pub(super) fn are_told_of_rivals(&mut self, service: ServiceId, now: Instant) -> bool {
        let next = self.told_of_rivals.get(&service).map(|told| *told + SELDOM);
        match next.filter(|next| now < *next) {
            Some(next) => {
                self.look_at(service, next);
                false
            }
            None => {
                self.told_of_rivals.insert(service, now);
                true
            }
        }
    }

    /// Whether people were told of this one.
    pub(super) fn are_told_of(&self, service: ServiceId, cookie: u64) -> bool {
        self.told.get(&service).is_some_and(|told| told.contains(&cookie))
    }

    /// People know of these, and whoever is gone is forgotten: cookies are not given again.
    pub(super) fn note_told_of(&mut self, service: ServiceId, all: impl Iterator<Item = u64>) {
        self.told.insert(service, all.collect());
    }

    /// Nobody serves in place of a service.
    pub(super) fn note_no_usurpers(&mut self, service: ServiceId) {
        if let Some(known) = self.usurpers.get_mut(&service) {
            known.since = None;
        }
    }

    /// Forgets those of a service that is detached.
    pub(in crate::daemon) fn forget(&mut self, service: ServiceId) {
        self.due.remove(&service);
        self.told.remove(&service);
        self.usurpers.remove(&service);
        self.told_of_rivals.remove(&service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_and_goes_is_told_of_seldom() {
        let (mut strangers, begun) = (Strangers::default(), Instant::now());
        let mut told_after =
            |time: Duration| strangers.are_told_of_usurpers(ServiceId(1), begun + time);
        assert!(!told_after(Duration::ZERO), "it may become the service's");
        assert!(told_after(SOON));
        assert!(!told_after(2 * SOON));
        assert!(told_after(SOON + SELDOM));
        strangers.note_no_usurpers(ServiceId(1));
        let again = begun + SOON + SELDOM * 2;
        assert!(!strangers.are_told_of_usurpers(ServiceId(1), again), "it has just come");
        assert!(strangers.are_told_of_usurpers(ServiceId(1), again + SOON));
    }

    #[test]
    fn who_listens_beside_a_service_is_told_of_seldom_and_forgotten() {
        let (mut strangers, begun, id) = (Strangers::default(), Instant::now(), ServiceId(1));
        assert!(strangers.are_told_of_rivals(id, begun));
        strangers.note_told_of(id, [1, 2].into_iter());
        assert!(!strangers.are_told_of_rivals(id, begun + SELDOM / 2));
        assert_eq!(strangers.next_look(), Some(begun + SELDOM), "those are not forgotten");
        assert!(strangers.are_told_of_rivals(id, begun + SELDOM));
        strangers.note_told_of(id, [2, 3].into_iter());
        let told = |cookie| strangers.are_told_of(id, cookie);
        assert_eq!([1, 2, 3].map(told), [false, true, true]);
    }
}
