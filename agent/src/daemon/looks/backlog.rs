//! The accept queues of a primary that has to prove itself, as far as they were looked at.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The accept queues of one generation, and since when none of them has moved.
#[derive(Debug)]
pub(in crate::daemon) struct Backlog {
    queues: HashMap<u64, Queue>,
    standing: HashMap<u16, Standing>,
    next_look: Instant,
}

/// Who waits at a port, as long as nobody of them is accepted.
#[derive(Clone, Debug)]
struct Standing {
    since: Instant,
    clients: HashSet<SocketAddr>,
}

/// One listener's queue since it was last seen empty or shorter than before.
#[derive(Clone, Copy, Debug)]
struct Queue {
    waiting: u32,
    stands_since: Instant,
    grown_at: Instant,
    /// How often it was looked at since then.
    looks: u32,
}

/// Between two looks at most, and what they may take of the time: one part in so many.
const LOOK: Duration = Duration::from_millis(50);
const SHARE: u32 = 10;
/// How long a server may let connections wait while more and more come.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many looks at least: on a machine that takes long for one, few of them say nothing of what was between.
const LOOKS: u32 = 8;
/// How long a server may accept nobody while anybody waits: longer, since one that serves one client after the other does so
/// for as long as a request takes.
const STANDSTILL: Duration = Duration::from_millis(1_500);

impl Backlog {
    /// One that is to be looked at now.
    pub(super) fn new(now: Instant) -> Self {
        Self { queues: HashMap::new(), standing: HashMap::new(), next_look: now }
    }

    pub(super) const fn next_look(&self) -> Instant {
        self.next_look
    }

    /// It was looked at, which took from then to now.
    pub(super) fn note_look(&mut self, begun: Instant, now: Instant) {
        self.next_look = now + LOOK.max((now - begun) * SHARE);
    }

    /// Takes note of a listener's queue. Whether nobody accepts there: it was never empty nor shorter for too long, and has
    /// gone on growing or is full. A burst that one busy thread works off does not grow.
    pub(super) fn is_stuck(
        &mut self,
        listener: u64,
        waiting: u32,
        full: bool,
        now: Instant,
    ) -> bool {
        let fresh = Queue { waiting, stands_since: now, grown_at: now, looks: 0 };
        let queue = self.queues.entry(listener).or_insert(fresh);
        if waiting == 0 || waiting < queue.waiting {
            *queue = fresh;
            return false;
        }
        queue.looks += 1;
        if waiting > queue.waiting {
            (queue.waiting, queue.grown_at) = (waiting, now);
        }
        let grows = full || queue.grown_at >= queue.stands_since + PATIENCE / 2;
        grows && now >= queue.stands_since + PATIENCE && queue.looks >= LOOKS
    }

    /// Takes note of who waits at each port. Whether nobody was accepted at one for too long: a queue that clients fill once,
    /// and do not make longer because each waits for its answer, neither grows nor is full.
    pub(super) fn stands_still(
        &mut self,
        waiting: HashMap<u16, HashSet<SocketAddr>>,
        now: Instant,
    ) -> bool {
        self.standing.retain(|port, _| waiting.contains_key(port));
        let mut still = false;
        for (port, clients) in waiting {
            let fresh = Standing { since: now, clients };
            let known = self.standing.entry(port).or_insert_with(|| fresh.clone());
            if !known.clients.is_subset(&fresh.clients) {
                *known = fresh;
            }
            still |= now >= known.since + STANDSTILL;
        }
        still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a queue every 50 ms: how long it is, and whether its listener is found stuck.
    fn is_found_stuck(queue: impl Fn(u32) -> u32, full_at: u32) -> bool {
        let begun = Instant::now();
        let mut backlog = Backlog::new(begun);
        (0..60).any(|look| {
            let waiting = queue(look);
            backlog.is_stuck(7, waiting, waiting >= full_at, begun + LOOK * look)
        })
    }

    /// Between two looks it may have been empty.
    #[test]
    fn a_queue_that_is_looked_at_seldom_is_not_found_stuck_soon() {
        let begun = Instant::now();
        let mut backlog = Backlog::new(begun);
        let mut look =
            |number| backlog.is_stuck(7, number, false, begun + Duration::from_secs(1) * number);
        assert!((1..LOOKS).all(|number| !look(number)));
        assert!(look(LOOKS));
    }

    #[test]
    fn a_queue_that_only_grows_or_stays_full_is_stuck() {
        assert!(is_found_stuck(|look| look, u32::MAX));
        assert!(is_found_stuck(|look| look / 5, u32::MAX));
        assert!(is_found_stuck(|look| look.min(6), 6));
    }

    /// Looks every 50 ms at who waits at a port.
    fn is_found_still(clients: impl Fn(u16) -> Vec<u16>) -> bool {
        let begun = Instant::now();
        let mut backlog = Backlog::new(begun);
        (0..60).any(|look| {
            let client = |port| SocketAddr::from(([127, 0, 0, 1], port));
            let waiting: HashSet<_> = clients(look).into_iter().map(client).collect();
            let at_port = (!waiting.is_empty()).then_some((80, waiting));
            backlog.stands_still(at_port.into_iter().collect(), begun + LOOK * u32::from(look))
        })
    }

    #[test]
    fn a_queue_that_nobody_leaves_stands_still_however_short_it_is() {
        assert!(is_found_still(|_| vec![1]));
        assert!(is_found_still(|look| (0..10 + look / 20).collect()));
        assert!(!is_found_still(|_| Vec::new()));
        assert!(!is_found_still(|look| vec![look, look + 1]), "one after the other");
        assert!(!is_found_still(|look| vec![look / 20, 100]), "a second for each");
    }

    #[test]
    fn a_queue_that_is_worked_off_is_not() {
        assert!(!is_found_stuck(|_| 0, u32::MAX));
        assert!(!is_found_stuck(|look| 100 - look, u32::MAX), "a burst");
        assert!(!is_found_stuck(|_| 2, u32::MAX), "one thread, and a request that takes its time");
        assert!(!is_found_stuck(|look| look % 15, u32::MAX), "empty at times");
        assert!(!is_found_stuck(|look| 20 + look - look / 10 * 11, u32::MAX), "shorter at times");
    }
}
