//! `agent attach`.

use super::{
    Context,
    arguments::AttachArguments,
    client::ClientError,
    output::{Answer, Look},
    start, status, words,
};
use crate::{
    api::{AttachRequest, Attached, Problem},
    daemon::Other,
    exit::ExitCode,
};

/// Takes charge of a port; starts the agent first where there is none.
pub(super) async fn run(
    context: &Context,
    arguments: &AttachArguments,
) -> Result<ExitCode, Problem> {
    let AttachArguments { ports, address, name, pid } = arguments;
    let request =
        AttachRequest { ports: ports.clone(), address: *address, name: name.clone(), pid: *pid };
    let attached = match context.client.attach(&request).await {
        Err(ClientError::NotRunning { .. }) => {
            start::agent(context, Other::Respect).await?;
            context.client.attach(&request).await?
        }
        answer => answer?,
    };
    context.console.answer(&attached)?;
    for warning in &attached.warnings {
        context.console.warn(&words::line(warning));
    }
    Ok(ExitCode::Done)
}

impl Answer for Attached {
    fn text(&self, look: Look) -> String {
        let done = if self.changed { "attached" } else { "already attached, nothing was changed" };
        format!("{done}\n{}", status::service(&self.service, look))
    }
}
