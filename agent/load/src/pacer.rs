//! Hands out requests to whoever is free, at their times.
//!
//! A closed loop (the next request after the last answer) would slow down with the server and so hide exactly the
//! moments of interest. Here every request has its time from the start, and latencies count from that time. A request that
//! finds nobody free waits for the first who is: it is begun late, and its latency says so.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::alarm::Alarm;
use super::schedule::Schedule;
use super::stop::Stop;

/// The open loop of one class on one thread.
#[derive(Debug)]
pub(super) struct Pacer {
    schedule: Schedule,
    turn: Turn,
    state: Mutex<State>,
    wake: Notify,
}

/// Which of those who are free gets the next request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// The one that has waited longest: every kept connection is used.
    Longest,
    /// The one that has waited least: its memory is still in the cache.
    Least,
}

#[derive(Debug, Default)]
struct State {
    /// How many requests have been begun.
    begun: u64,
    /// How many were due when the pacer last looked.
    due: u64,
    /// How many clients wait for one.
    free: u64,
    closed: bool,
}

/// What the pacer saw when requests became due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lack {
    /// Requests that are due and that nobody is free for.
    pub(super) clients: u64,
}

impl Pacer {
    pub(super) fn new(schedule: Schedule, turn: Turn) -> Self {
        Self { schedule, turn, state: Mutex::default(), wake: Notify::new() }
    }

    /// Waits for a request and returns when it was due, or `None` if the run comes to its end.
    pub(super) async fn next(&self) -> Option<Instant> {
        loop {
            {
                let mut state = self.state();
                if state.closed {
                    return None;
                }
                if state.begun < state.due {
                    let intended = self.schedule.due(state.begun);
                    state.begun += 1;
                    return Some(intended);
                }
                state.free += 1;
            }
            self.wake.notified().await;
            self.state().free -= 1;
        }
    }

    /// Hands out requests until the end is requested. `reinforce` may add clients where one is lacking. Returns how many
    /// requests were due by then and not begun.
    pub(super) async fn run(
        &self,
        mut stop: Stop,
        mut reinforce: impl FnMut(Lack),
    ) -> std::io::Result<u64> {
        let alarm = Alarm::new()?;
        let mut stopped = std::pin::pin!(stop.wait());
        let mut next = 0;
        let waited = loop {
            tokio::select! {
                biased;
                () = &mut stopped => break Ok(()),
                waited = alarm.wait_until(self.schedule.due(next)) => if waited.is_err() { break waited },
            }
            next = self.schedule.due_by(Instant::now());
            reinforce(self.release(next));
            // A loop that is behind never waits above, and would starve the requests that it has begun.
            tokio::task::yield_now().await;
        };
        let left = self.close();
        waited.map(|()| left)
    }

    /// Lets the requests up to a number be begun.
    fn release(&self, due: u64) -> Lack {
        let (wake, lack) = {
            let mut state = self.state();
            let new = due.saturating_sub(state.due);
            state.due = state.due.max(due);
            let lack = (state.due - state.begun).saturating_sub(state.free);
            (new.min(state.free), Lack { clients: lack })
        };
        for _ in 0..wake {
            match self.turn {
                Turn::Longest => self.wake.notify_one(),
                Turn::Least => self.wake.notify_last(),
            }
        }
        lack
    }

    /// Lets nothing more be begun, and says how many requests should have been.
    fn close(&self) -> u64 {
        let left = {
            let mut state = self.state();
            state.closed = true;
            self.schedule.due_by(Instant::now()).saturating_sub(state.begun)
        };
        self.wake.notify_waiters();
        left
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::schedule::Share;
    use super::*;

    fn pacer(rate: u32) -> Pacer {
        let share = Share { index: 0, threads: 1 };
        Pacer::new(Schedule { begun: Instant::now(), rate, share }, Turn::Longest)
    }

    #[tokio::test]
    async fn each_request_is_handed_out_once_with_its_own_time() {
        let pacer = pacer(1);
        assert_eq!(pacer.release(2), Lack { clients: 2 });
        let begun = pacer.schedule.begun;
        assert_eq!(pacer.next().await, Some(begun));
        assert_eq!(pacer.next().await, Some(begun + Duration::from_secs(1)));
        let none = tokio::time::timeout(Duration::from_millis(5), pacer.next()).await;
        none.unwrap_err();
    }

    #[tokio::test]
    async fn what_is_due_at_the_end_and_not_begun_is_counted() {
        let pacer = pacer(1_000);
        let (wish, stop) = Stop::new();
        let ended = async {
            for _ in 0..5 {
                pacer.next().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            wish.send_replace(super::super::stop::Wish::Finish);
        };
        let mut lack = 0;
        let (left, ()) = tokio::join!(pacer.run(stop, |seen| lack = seen.clients), ended);
        assert!(lack > 0 && left.unwrap() >= 40);
        assert_eq!(pacer.next().await, None);
    }
}
