//! Asking again where the agent was killed before it answered.
//!
//! What was asked for may have been begun or not, and only the agent that comes back can tell: it knows the request by its
//! number, and begins nothing twice.

use std::{fs, time::Duration};

use agent_api::{Problem, ProblemKind, RequestId, client::ClientError};
use tokio::time::{Instant, sleep};

use super::{follow::AWAY, output::Console};

/// How often an agent that went away is asked again.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// A number that no other request has.
///
/// # Errors
///
/// When the kernel gives none.
pub(super) fn new_id() -> Result<RequestId, Problem> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = fs::read_to_string(path).map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("read `{path}`")).because(&error)
    })?;
    Ok(RequestId(text.trim().to_owned()))
}

/// Asks until there is an answer, for as long as an agent may be away that was there when it was asked first.
///
/// # Errors
///
/// The first one that is not an agent's death, or the last one when the time is up.
pub(super) async fn ask<T>(
    console: &Console,
    mut question: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let mut answer = question().await;
    if !answer.as_ref().is_err_and(ClientError::is_broken) {
        return answer;
    }
    console.note("the agent is away, asking it again when it comes back");
    let began = Instant::now();
    while answer.as_ref().is_err_and(ClientError::may_pass) && began.elapsed() < AWAY {
        sleep(AGAIN).await;
        answer = question().await;
    }
    answer.map_err(ClientError::after_all)
}
