//! `agent detach`.

use super::{
    Context,
    arguments::DetachArguments,
    output::{Answer, Look},
};
use crate::{
    api::{Detached, Problem},
    exit::ExitCode,
};

/// Hands a port back.
pub(super) async fn run(
    context: &Context,
    arguments: &DetachArguments,
) -> Result<ExitCode, Problem> {
    let detached = context.client.detach(&arguments.service.selected()).await?;
    context.console.answer(&detached)?;
    Ok(ExitCode::Done)
}

impl Answer for Detached {
    fn text(&self, _look: Look) -> String {
        let Self { schema: _, changed, service, last } = self;
        match (changed, last) {
            (false, _) => format!("{service} is not attached, nothing was changed\n"),
            (true, false) => format!("{service} is detached\n"),
            (true, true) => format!("{service} is detached; it was the last service\n"),
        }
    }
}
