//! How a replaced generation leaves: from what was typed to what is asked for.

use agent_api::{Problem, ProblemKind};
use agent_rollout::{DrainPlan, DrainPolicy};

use super::arguments::{DrainOptions, DrainWhen};

/// The request that the options make.
///
/// # Errors
///
/// When they contradict each other.
pub(super) fn request(options: &DrainOptions) -> Result<DrainPlan, Problem> {
    let DrainOptions {
        drain,
        drain_timeout,
        drain_idle,
        drain_signal,
        queue_timeout,
        stop_timeout,
        keep_old,
    } = options;
    if *drain == DrainWhen::Graceful && drain_idle.is_some() {
        let message =
            "`--drain-idle` counts silent flows as ended, and `--drain graceful` waits for none";
        return Err(Problem::new(ProblemKind::Usage, message).fix("leave one of them out"));
    }
    Ok(DrainPlan {
        policy: match drain {
            DrainWhen::Patient => DrainPolicy::Patient { idle: *drain_idle },
            DrainWhen::Graceful => DrainPolicy::Graceful,
        },
        signal: *drain_signal,
        queue_timeout: *queue_timeout,
        timeout: *drain_timeout,
        stop_timeout: *stop_timeout,
        keep_old: *keep_old,
    })
}
