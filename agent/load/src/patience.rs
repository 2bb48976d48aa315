//! How long a client waits for the server.
//!
//! A timer for each wait would be set and taken back twice for each request, and nearly none ever rings. A client has one,
//! which stays as it was set: when it rings and there is time left, it is set to the end of that. This is enough because
//! every wait of a run has the same limit, so that no later one ends earlier.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one client.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

/// The server took too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Exhausted;

impl Patience {
    /// One that lasts for `limit` each time. Needs a runtime with a timer.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: Box::pin(sleep_until(Instant::now())) }
    }

    /// Waits for something, but no longer than the limit from now on.
    pub(super) async fn wait_for<T>(
        &mut self,
        event: impl Future<Output = T>,
    ) -> Result<T, Exhausted> {
        let end = Instant::now() + self.limit;
        let mut event = pin!(event);
        poll_fn(|context| {
            if let Poll::Ready(it) = event.as_mut().poll(context) {
                return Poll::Ready(Ok(it));
            }
            while self.timer.as_mut().poll(context).is_ready() {
                if Instant::now() >= end {
                    return Poll::Ready(Err(Exhausted));
                }
                self.timer.as_mut().reset(end);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn each_wait_has_the_whole_limit_whenever_the_timer_was_set() {
        let limit = Duration::from_millis(40);
        let mut patience = Patience::new(limit);
        for already in [0, 10, 30, 70] {
            tokio::time::sleep(Duration::from_millis(already)).await;
            assert_eq!(patience.wait_for(ready(1)).await, Ok(1));
            let soon = tokio::time::sleep(Duration::from_millis(already.min(20)));
            assert_eq!(patience.wait_for(soon).await, Ok(()));
            let begun = Instant::now();
            assert_eq!(patience.wait_for(pending::<()>()).await, Err(Exhausted));
            let waited = begun.elapsed();
            assert!(waited >= limit && waited < 50 * limit, "{waited:?}");
        }
    }
}
