//! `agent undo`.

use agent_api::{ExitCode, Problem, UndoRequest};
use agent_rollout::Kind;
use agent_terms::GenerationNumber;

use super::{Context, arguments::UndoArguments, drain, follow, persist};

/// Puts the previous generation back, and waits as far as asked.
pub(super) async fn run(context: &Context, arguments: &UndoArguments) -> Result<ExitCode, Problem> {
    let UndoArguments { service, wait, if_generation, if_release, drain } = arguments;
    let request = UndoRequest {
        drain: drain::request(drain)?,
        if_generation: if_generation.map(GenerationNumber),
        if_release: if_release.clone(),
        request: Some(persist::new_id()?),
    };
    let service = service.selected();
    let begun =
        persist::ask(&context.console, async || context.client.undo(&service, &request).await)
            .await?;
    context.console.warn_of(&begun.warnings);
    if begun.rollout.kind == Kind::Upgrade {
        // A candidate was taken back: its upgrade has failed, but what was asked for here is done.
        context.console.answer(&begun)?;
        return Ok(ExitCode::Done);
    }
    follow::to_the_end(context, begun, (*wait).into()).await
}
