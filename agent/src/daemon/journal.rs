//! What happened, for people: the last events and whoever follows them.

use std::collections::VecDeque;

use tokio::sync::broadcast;

use super::clock;
use crate::{
    api::{self, EventKind, EventView},
    service::{GenerationNumber, ServiceName},
};

/// How many events are remembered.
const REMEMBERED: usize = 1000;

/// The last events. Followers that are too slow lose the oldest and are told so by the gap in the sequence.
pub(super) struct Journal {
    events: VecDeque<EventView>,
    next: u64,
    followers: broadcast::Sender<EventView>,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { events: VecDeque::new(), next: 1, followers: broadcast::Sender::new(REMEMBERED) }
    }

    /// Writes down an event of a service, in the log too.
    pub(super) fn note(
        &mut self,
        service: &ServiceName,
        generation: Option<GenerationNumber>,
        kind: EventKind,
        message: impl Into<String>,
    ) {
        let message = message.into();
        match kind {
            EventKind::Warning => {
                tracing::warn!(%service, generation = generation.map(|it| it.0), "{message}");
            }
            _ => tracing::info!(%service, generation = generation.map(|it| it.0), "{message}"),
        }
        self.write_down(Some(service.clone()), generation, kind, message);
    }

    /// Writes down an event of the agent itself, in the log too.
    pub(super) fn note_agent(&mut self, kind: EventKind, message: impl Into<String>) {
        let message = message.into();
        match kind {
            EventKind::Warning => tracing::warn!("{message}"),
            _ => tracing::info!("{message}"),
        }
        self.write_down(None, None, kind, message);
    }

    fn write_down(
        &mut self,
        service: Option<ServiceName>,
        generation: Option<GenerationNumber>,
        kind: EventKind,
        message: String,
    ) {
        let sequence = self.next;
        self.next += 1;
        let event = EventView {
            schema: api::SCHEMA,
            sequence,
            unix_ms: clock::unix_ms(),
            service,
            generation,
            kind,
            message,
        };
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back(event.clone());
        // Nobody listening is no failure.
        let _: Result<usize, _> = self.followers.send(event);
    }

    pub(super) fn last(&self) -> Vec<EventView> {
        self.events.iter().cloned().collect()
    }

    pub(super) fn follow(&self) -> broadcast::Receiver<EventView> {
        self.followers.subscribe()
    }
}
