//! `agent detach`.

use agent_api::{Detached, ExitCode, Problem, ProblemKind, SCHEMA, Selected, client::ClientError};
use agent_terms::ServiceName;
use tokio::time::{Instant, sleep};

use super::{
    Context,
    arguments::DetachArguments,
    follow::AWAY,
    output::{Answer, Look},
    persist::{self, AGAIN},
};
use crate::places::Places;

/// Hands a port back.
pub(super) async fn run(
    context: &Context,
    arguments: &DetachArguments,
) -> Result<ExitCode, Problem> {
    let selected = arguments.service.selected();
    let service = named(context, &selected).await?;
    let mut asked = 0;
    let detached = persist::ask(&context.console, async || {
        asked += 1;
        let answer = context.client.detach(&selected).await;
        match answer {
            // It was killed when it had done all of it: for this alone nobody starts one again.
            Err(ClientError::NotRunning { .. })
                if asked > 1 && nothing_is_left(&context.places) =>
            {
                let service = service.clone();
                Ok(Detached {
                    schema: SCHEMA,
                    changed: true,
                    service,
                    last: true,
                    warnings: Vec::new(),
                })
            }
            answer => answer,
        }
    });
    let detached = match detached.await {
        // An agent that was killed in the middle of it has finished it when it came back.
        Err(ClientError::Refused(problem))
            if asked > 1 && problem.kind == ProblemKind::NotFound =>
        {
            Detached { schema: SCHEMA, changed: true, service, last: false, warnings: Vec::new() }
        }
        answer => answer?,
    };
    context.console.warn_of(&detached.warnings);
    context.console.answer(&detached)?;
    Ok(ExitCode::Done)
}

/// The name of the service. An agent that is about to end, because somebody else has detached the last one, does not say it.
async fn named(context: &Context, selected: &Selected) -> Result<ServiceName, ClientError> {
    let began = Instant::now();
    loop {
        match context.client.service(selected).await {
            Err(error) if error.is_ending() && began.elapsed() < AWAY => sleep(AGAIN).await,
            answer => return Ok(answer?.name),
        }
    }
}

/// The state goes last of all that steers.
fn nothing_is_left(places: &Places) -> bool {
    !places.state_file().exists() && !places.pin_dir.exists()
}

impl Answer for Detached {
    fn text(&self, _look: Look) -> String {
        let Self { schema: _, changed, service, last, warnings: _ } = self;
        match (changed, last) {
            (false, _) => format!("{service} is not attached, nothing was changed\n"),
            (true, false) => format!("{service} is detached\n"),
            (true, true) => format!("{service} is detached; it was the last service\n"),
        }
    }
}
