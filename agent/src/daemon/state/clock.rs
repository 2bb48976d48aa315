//! The two clocks: one for deadlines, one for people.

use std::time::{Duration, SystemTime};

use agent_rollout::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Now, for deadlines: since boot, so that setting the clock moves none.
pub(in crate::daemon) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let since_boot =
        Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0));
    Timestamp::default().after(since_boot)
}

/// Now, for people, by a clock that may be set at any moment. Nothing may be decided by it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where wall-clock time is taken, to be shown"
)]
pub(in crate::daemon) fn wall() -> SystemTime {
    SystemTime::now()
}

/// When a moment was, for people.
pub(in crate::daemon) fn wall_at(moment: Timestamp) -> SystemTime {
    let now_by_wall = wall();
    now_by_wall.checked_sub(now().since(moment)).unwrap_or(SystemTime::UNIX_EPOCH)
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
