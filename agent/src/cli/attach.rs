//! `agent attach`.

use agent_api::{AttachRequest, Attached, ExitCode, Problem, ProblemKind, client::ClientError};
use tokio::time::{Instant, sleep};

use super::{
    Context,
    arguments::AttachArguments,
    follow::AWAY,
    output::{Answer, Look},
    persist::AGAIN,
    published,
    start::{self, Stay},
    status,
};
use crate::daemon::Other;

/// Takes charge of a port; starts the agent first where there is none.
pub(super) async fn run(
    context: &Context,
    arguments: &AttachArguments,
) -> Result<ExitCode, Problem> {
    let AttachArguments { ports, address, name, pid } = arguments;
    let request =
        AttachRequest { ports: ports.clone(), address: *address, name: name.clone(), pid: *pid };
    let mut attached = attach(context, &request).await?;
    if attached.changed {
        attached.warnings.extend(published::warnings(ports).await);
    }
    context.console.answer(&attached)?;
    context.console.warn_of(&attached.warnings);
    Ok(ExitCode::Done)
}

/// An agent that is killed in the middle of it is started again, by us or by somebody else, and has taken back what it had
/// begun: so it is asked again.
async fn attach(context: &Context, request: &AttachRequest) -> Result<Attached, Problem> {
    const TIMES: u32 = 3;
    let began = Instant::now();
    let (mut lost, mut started) = (0, None);
    loop {
        let answer = context.client.attach(request).await;
        match answer {
            Err(ClientError::NotRunning { .. }) if lost < TIMES && began.elapsed() < AWAY => {
                match start::agent(context, Other::Respect, Stay::ForAttach).await {
                    // Somebody else has started one, which does not listen yet.
                    Err(problem) if problem.kind == ProblemKind::Locked => sleep(AGAIN).await,
                    Err(problem) => return Err(problem),
                    Ok(agent) => started = Some(agent),
                }
            }
            // Somebody else has detached its last service.
            Err(error) if error.is_ending() && began.elapsed() < AWAY => sleep(AGAIN).await,
            Err(error) if error.is_broken() && lost < TIMES => lost += 1,
            // What the system says of the socket is not always about the socket.
            Err(error @ (ClientError::Forbidden { .. } | ClientError::Unconnected { .. })) => {
                return Err(start::obstacle(context).unwrap_or_else(|| error.into()));
            }
            // One with nothing to do ends again.
            Err(error) => {
                if let (ClientError::Refused(_), Some(agent)) = (&error, started) {
                    agent.in_vain().await;
                }
                return Err(error.into());
            }
            Ok(attached) => {
                if started.is_some() {
                    context.console.note("started the agent in the background");
                }
                return Ok(attached);
            }
        }
    }
}

impl Answer for Attached {
    fn text(&self, look: Look) -> String {
        let done = if self.changed { "attached" } else { "already attached, nothing was changed" };
        format!("{done}\n{}", status::service(&self.service, look))
    }
}
