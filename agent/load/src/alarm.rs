//! A timer that is exact to some microseconds.
//!
//! The runtime's own timers round up to a millisecond, which is twenty handshakes on loopback: latencies counted from
//! the intended start would say more about the timer than about the server.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A kernel timer that the runtime waits for like for a socket.
#[derive(Debug)]
pub(super) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[expect(
        deprecated,
        reason = "the successor is unsafe for the sake of descriptors that change; an `OwnedFd` never does"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Waits until an instant. Broken off, it can be used again.
    pub(super) async fn wait_until(&self, instant: Instant) -> io::Result<()> {
        let left = instant.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        // A new setting takes back an expiry that nobody has read.
        timerfd_settime(
            self.0.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: once, it_value: left },
        )?;
        loop {
            let mut ready = self.0.readable().await?;
            let expiries =
                ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?));
            // A readiness from before the setting has nothing to read.
            if let Ok(read) = expiries {
                // Else the next wait would begin with a read that finds nothing.
                ready.clear_ready();
                return read.map(|_eight| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_alarm_is_never_early_and_can_be_set_again() {
        let alarm = Alarm::new().unwrap();
        for micros in [0, 300, 2_000, 50] {
            let instant = Instant::now() + Duration::from_micros(micros);
            alarm.wait_until(instant).await.unwrap();
            assert!(Instant::now() >= instant);
        }
    }

    #[tokio::test]
    async fn an_alarm_that_was_broken_off_does_not_ring_early() {
        let alarm = Alarm::new().unwrap();
        let begun = Instant::now();
        let soon = alarm.wait_until(begun + Duration::from_millis(300));
        tokio::time::timeout(Duration::ZERO, soon).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(310)).await;
        let later = begun + Duration::from_millis(400);
        alarm.wait_until(later).await.unwrap();
        assert!(Instant::now() >= later);
    }
}
