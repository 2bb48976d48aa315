//! Waiting for a condition that nothing announces, with an end.

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
        sleep(BETWEEN);
    }
}

/// Lets a time pass, for what is measured over it. It is no way to wait for something.
#[expect(clippy::disallowed_methods, reason = "nothing tells that a time has passed")]
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

const BETWEEN: Duration = Duration::from_millis(10);
