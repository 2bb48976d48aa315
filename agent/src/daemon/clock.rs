//! The two clocks: one for deadlines, one for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::rollout::Timestamp;

/// Now, for deadlines: since boot, so that setting the clock moves none.
pub(super) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let since_boot =
        Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0));
    Timestamp::default().after(since_boot)
}

/// Now, for people: milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// When a moment was, for people.
pub(super) fn unix_ms_of(moment: Timestamp) -> u64 {
    let ago = now().since(moment);
    unix_ms().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
}
