//! `agent events`.

use agent_api::{EventKind, EventView, Events, ExitCode, Problem};
use agent_terms::Moment;

use super::{
    Context,
    arguments::EventsArguments,
    output::{Answer, Look, Paint},
    words,
};

/// Shows what happened, or what happens.
pub(super) async fn run(
    context: &Context,
    arguments: &EventsArguments,
) -> Result<ExitCode, Problem> {
    if !arguments.follow {
        let events = context.client.events().await?;
        context.console.answer(&events)?;
        return Ok(ExitCode::Done);
    }
    let mut stream = context.client.follow_events().await?;
    while let Some(event) = stream.next().await? {
        context.console.one_of_many(&event)?;
        if context.console.reader_is_gone() {
            break;
        }
    }
    Ok(ExitCode::Done)
}

impl Answer for Events {
    fn text(&self, look: Look) -> String {
        self.events.iter().map(|event| event.text(look)).collect()
    }

    fn elements(&self) -> serde_json::Result<Vec<serde_json::Value>> {
        self.events.iter().map(serde_json::to_value).collect()
    }
}

impl Answer for EventView {
    /// One line with fixed places: what is still to come cannot make a column wider.
    fn text(&self, look: Look) -> String {
        let Self { schema: _, sequence: _, at, service, generation, kind, message } = self;
        let generation = generation.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let service = service.as_ref().map_or("-", |service| service.as_str());
        let line = format!(
            "{}  {service:<12}  {generation:>3}  {:<9}  {}",
            Moment::written(*at),
            word(*kind),
            words::line(message),
        );
        let line = match kind {
            EventKind::Warning => Paint::Warning.on(&line, look.colour),
            EventKind::Switched => Paint::Serving.on(&line, look.colour),
            EventKind::Recovered
            | EventKind::Attached
            | EventKind::Detached
            | EventKind::Launched
            | EventKind::Settled
            | EventKind::Cleared
            | EventKind::Kept
            | EventKind::EndpointsChanged
            | EventKind::Moved
            | EventKind::Signalled
            | EventKind::Gone
            | EventKind::Ended => line,
        };
        format!("{line}\n")
    }
}

const fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Attached => "attached",
        EventKind::Detached => "detached",
        EventKind::Launched => "launched",
        EventKind::Switched => "switched",
        EventKind::Settled => "settled",
        EventKind::Cleared => "cleared",
        EventKind::Kept => "kept",
        EventKind::EndpointsChanged => "endpoints",
        EventKind::Moved => "moved",
        EventKind::Signalled => "signalled",
        EventKind::Gone => "gone",
        EventKind::Ended => "ended",
        EventKind::Warning => "warning",
        EventKind::Recovered => "recovered",
    }
}
