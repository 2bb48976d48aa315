//! New connections at a set rate, whatever becomes of those before.
//!
//! A closed loop (the next request after the last answer) would slow down with the server and so hide exactly the
//! moments of interest. Here every request has its time from the start, and latencies count from that time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::alarm::Alarm;
use super::client::Client;
use super::http::After;
use super::plan::OneShot;
use super::report::Class;
use super::stop::Stop;

/// Begins requests until the end is requested, then waits for those under way.
pub(super) async fn run(client: Arc<Client>, settings: OneShot, mut stop: Stop) {
    let alarm = match Alarm::new() {
        Ok(alarm) => alarm,
        Err(error) => return client.recorder.broken(&format!("make a timer: {error}")),
    };
    let request: Arc<[u8]> = client.plan.protocol.request(After::Close).into();
    let room = Arc::new(Semaphore::new(settings.in_flight));
    let mut under_way = JoinSet::new();
    let begun = Instant::now();
    for number in 0.. {
        let intended = begun + offset(number, settings.rate);
        let waited = tokio::select! {
            waited = alarm.wait_until(intended) => waited,
            () = stop.wait() => break,
        };
        if let Err(error) = waited {
            client.recorder.broken(&format!("wait for the next request's time: {error}"));
            break;
        }
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        if intended.elapsed() > LATE {
            client.recorder.late(Class::OneShot);
        }
        under_way.spawn(one(Arc::clone(&client), Arc::clone(&request), intended, permit));
        // A loop that is behind never waits above, and would starve the requests that it has begun.
        if number % BATCH == 0 {
            tokio::task::yield_now().await;
        }
        while let Some(ended) = under_way.try_join_next() {
            client.recorder.ended(ended);
        }
    }
    while let Some(ended) = under_way.join_next().await {
        client.recorder.ended(ended);
    }
}

async fn one(
    client: Arc<Client>,
    request: Arc<[u8]>,
    intended: Instant,
    _room: OwnedSemaphorePermit,
) {
    let exchange = async {
        let mut connection = client.connect(Class::OneShot, intended, None).await?;
        client.ask(&mut connection, &request, intended).await
    };
    if let Err(failure) = exchange.await {
        client.recorder.failed(Class::OneShot, failure);
    }
}

/// When the request of a number is due, without the drift of adding up a rounded interval.
fn offset(number: u64, rate: u32) -> Duration {
    let rate = u64::from(rate.max(1));
    Duration::from_secs(number / rate) + Duration::from_nanos(number % rate * 1_000_000_000 / rate)
}

/// Above what a busy machine takes to wake a thread.
const LATE: Duration = Duration::from_millis(10);
const BATCH: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_does_not_drift() {
        assert_eq!(offset(3_000, 3), Duration::from_secs(1_000));
        assert_eq!(offset(1, 3), Duration::from_nanos(333_333_333));
    }
}
