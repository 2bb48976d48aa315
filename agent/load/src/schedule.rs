//! When each request of an open loop is due, and which thread begins it.

use std::time::{Duration, Instant};

/// A thread's part of a run: every number that leaves its index when divided by the number of threads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Share {
    pub(super) index: u32,
    pub(super) threads: u32,
}

impl Share {
    /// Whether a client of this number lives on the thread.
    pub(super) fn has(self, number: u32) -> bool {
        number % self.threads == self.index
    }

    /// The thread's part of what only `clients` clients use, unless it has none of them.
    pub(super) fn among(self, clients: u32) -> Option<Self> {
        let threads = self.threads.min(clients);
        (self.index < threads).then_some(Self { index: self.index, threads })
    }

    /// The thread's part of a limit; one at least, or it could do nothing.
    pub(super) fn part(self, limit: usize) -> usize {
        let (index, threads) = (to_usize(self.index), to_usize(self.threads));
        (limit / threads + usize::from(index < limit % threads)).max(1)
    }

    /// The thread's `number`-th one, counted over all threads.
    pub(super) fn global(self, number: u64) -> u64 {
        number * u64::from(self.threads) + u64::from(self.index)
    }
}

/// The times of a thread's requests: they do not depend on what becomes of any request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) begun: Instant,
    /// Requests per second of all threads together.
    pub(super) rate: u32,
    pub(super) share: Share,
}

impl Schedule {
    /// When the thread's request of a number is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        self.begun + offset(self.share.global(number), self.rate)
    }

    /// How many requests of the thread are due at an instant.
    pub(super) fn due_by(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun);
        let all = since.as_nanos() * u128::from(self.rate.max(1)) / 1_000_000_000;
        let all = u64::try_from(all).unwrap_or(u64::MAX - 1) + 1;
        let (index, threads) = (u64::from(self.share.index), u64::from(self.share.threads));
        (all + threads - 1 - index) / threads
    }
}

/// When the request of a number is due, without the drift of adding up a rounded interval.
fn offset(number: u64, rate: u32) -> Duration {
    let rate = u64::from(rate.max(1));
    let nanos = (number % rate * 1_000_000_000).div_ceil(rate);
    Duration::from_secs(number / rate) + Duration::from_nanos(nanos)
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).expect("no target of ours has addresses of less than 32 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rate_does_not_drift() {
        assert_eq!(offset(3_000, 3), Duration::from_secs(1_000));
        assert_eq!(offset(1, 3), Duration::from_nanos(333_333_334));
    }

    #[test]
    fn a_limit_is_divided_and_never_nothing() {
        let parts = |limit| [0, 1, 2].map(|index| Share { index, threads: 3 }.part(limit));
        assert_eq!(parts(8), [3, 3, 2]);
        assert_eq!(parts(1), [1, 1, 1]);
    }

    #[test]
    fn threads_without_clients_have_no_share() {
        let share = |index| Share { index, threads: 4 };
        assert_eq!(share(1).among(2), Some(Share { index: 1, threads: 2 }));
        assert_eq!(share(2).among(2), None);
        assert_eq!(share(3).among(9), Some(share(3)));
    }

    proptest! {
        #[test]
        fn a_request_counts_as_due_from_its_time_on(
            number in 0..1_000_000_u64, rate in 1..1_000_000_u32, threads in 1..9_u32, index in 0..9_u32,
        ) {
            prop_assume!(index < threads);
            let schedule = Schedule { begun: Instant::now(), rate, share: Share { index, threads } };
            let due = schedule.due(number);
            prop_assert!(schedule.due_by(due) > number);
            if due > schedule.begun {
                prop_assert!(schedule.due_by(due - Duration::from_nanos(1)) <= number);
            }
        }
    }
}
