//! How a replaced generation leaves: from what was typed to what is asked for.

use super::arguments::{DrainOptions, DrainWhen};
use crate::{api::DrainRequest, rollout::DrainPolicy};

/// The request that the options make.
pub(super) fn request(options: &DrainOptions) -> DrainRequest {
    let DrainOptions {
        drain,
        drain_timeout,
        drain_idle,
        drain_signal,
        queue_timeout,
        stop_timeout,
        keep_old,
    } = options;
    DrainRequest {
        policy: match drain {
            DrainWhen::Patient => DrainPolicy::Patient { idle: *drain_idle },
            DrainWhen::Graceful => DrainPolicy::Graceful,
        },
        signal: drain_signal.0,
        queue_timeout: *queue_timeout,
        timeout: *drain_timeout,
        stop_timeout: *stop_timeout,
        keep_old: *keep_old,
    }
}
