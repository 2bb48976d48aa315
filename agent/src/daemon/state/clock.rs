//! The two clocks: one for deadlines, one for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_rollout::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Now, for deadlines: since boot, so that setting the clock moves none.
pub(in crate::daemon) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let since_boot =
        Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0));
    Timestamp::default().after(since_boot)
}

/// Now, for people: milliseconds since 1970, by a clock that may be set at any moment. Nothing may be decided by it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where wall-clock time is taken, to be shown"
)]
pub(in crate::daemon) fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// When a moment was, for people.
pub(in crate::daemon) fn unix_ms_of(moment: Timestamp) -> u64 {
    let ago = now().since(moment);
    unix_ms().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use procfs::Current as _;

    use super::*;

    #[test]
    fn deadlines_count_from_the_start_of_the_machine() {
        let uptime = || {
            let seconds = procfs::Uptime::current().unwrap().uptime_duration();
            Timestamp::default().after(seconds)
        };
        let before = uptime();
        let now = now();
        let after = uptime().after(Duration::from_millis(10));
        assert!(before <= now && now <= after, "{before:?} {now:?} {after:?}");
    }
}
