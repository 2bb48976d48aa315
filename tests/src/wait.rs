//! Waiting for a condition that nothing announces, with an end.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks again and again until there is an answer.
///
/// # Errors
///
/// If asking fails, or `limit` passes without an answer to `what`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > limit {
            bail!("waited {limit:?} in vain: {what}");
        }
        pause(BETWEEN);
    }
}

/// Lets a time pass.
pub fn pause(duration: Duration) {
    let (_sender, nothing) = mpsc::channel::<()>();
    // Nothing is ever sent: the timeout is the point.
    nothing.recv_timeout(duration).ok();
}

const BETWEEN: Duration = Duration::from_millis(10);
