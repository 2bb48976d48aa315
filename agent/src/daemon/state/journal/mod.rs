//! What happened, for people: the last events and whoever follows them.

mod budget;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use agent_api::{EventKind, EventView};
use agent_terms::{GenerationNumber, ServiceName};
use tokio::sync::broadcast;

use self::budget::Budgets;
use super::clock;

/// How many events are remembered.
const REMEMBERED: usize = 1000;

/// The last events. Followers that are too slow lose the oldest and are told so by the gap in the sequence.
pub(in crate::daemon) struct Journal {
    events: VecDeque<EventView>,
    next: u64,
    budgets: Budgets,
    followers: broadcast::Sender<EventView>,
}

impl Journal {
    pub(in crate::daemon) fn new() -> Self {
        let followers = broadcast::Sender::new(REMEMBERED);
        Self { events: VecDeque::new(), next: 1, budgets: Budgets::default(), followers }
    }

    /// Writes down an event of a service, in the log too.
    pub(in crate::daemon) fn note(
        &mut self,
        service: &ServiceName,
        generation: Option<GenerationNumber>,
        kind: EventKind,
        message: impl Into<String>,
    ) {
        if self.budgets.admits((Some(service.clone()), kind), Instant::now()) {
            self.write_down(Some(service.clone()), generation, kind, message.into());
        }
    }

    /// Writes down an event of the agent itself, in the log too.
    pub(in crate::daemon) fn note_agent(&mut self, kind: EventKind, message: impl Into<String>) {
        if self.budgets.admits((None, kind), Instant::now()) {
            self.write_down(None, None, kind, message.into());
        }
    }

    /// Tells how much was not told.
    pub(in crate::daemon) fn tell_untold(&mut self) {
        for ((service, kind), count) in self.budgets.take_untold(Instant::now()) {
            let message = format!("{count} more of this kind, too many to be told one by one");
            self.write_down(service, None, kind, message);
        }
    }

    /// When there is something of that.
    pub(in crate::daemon) fn next_untold(&self) -> Option<Instant> {
        self.budgets.next()
    }

    fn write_down(
        &mut self,
        service: Option<ServiceName>,
        generation: Option<GenerationNumber>,
        kind: EventKind,
        message: String,
    ) {
        let (name, number) = (service.as_ref().map(ServiceName::as_str), generation.map(|it| it.0));
        match kind {
            EventKind::Warning => tracing::warn!(service = name, generation = number, "{message}"),
            _ => tracing::info!(service = name, generation = number, "{message}"),
        }
        let sequence = self.next;
        self.next += 1;
        let event = EventView {
            schema: agent_api::SCHEMA,
            sequence,
            at: clock::wall(),
            service,
            generation,
            kind,
            message,
        };
        if self.events.len() == REMEMBERED {
            self.forget_one();
        }
        self.events.push_back(event.clone());
        // Nobody listening is no failure.
        let _: Result<usize, _> = self.followers.send(event);
    }

    /// The oldest one of whoever has the most: a service with much to tell makes nobody else's be forgotten.
    fn forget_one(&mut self) {
        let mut counts: BTreeMap<Option<&ServiceName>, usize> = BTreeMap::new();
        for event in &self.events {
            *counts.entry(event.service.as_ref()).or_default() += 1;
        }
        let loudest = counts.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source);
        let oldest = self.events.iter().position(|it| Some(it.service.as_ref()) == loudest);
        if let Some(oldest) = oldest {
            self.events.remove(oldest);
        }
    }

    pub(in crate::daemon) fn last(&self) -> Vec<EventView> {
        self.events.iter().cloned().collect()
    }

    pub(in crate::daemon) fn follow(&self) -> broadcast::Receiver<EventView> {
        self.followers.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loud_service_makes_no_other_ones_events_be_forgotten() {
        let mut journal = Journal::new();
        let (quiet, loud) = ("quiet".parse().unwrap(), "loud".parse().unwrap());
        journal.note(&quiet, None, EventKind::Warning, "once");
        for number in 0..3 * REMEMBERED {
            let message = number.to_string();
            journal.write_down(Some(ServiceName::clone(&loud)), None, EventKind::Warning, message);
        }
        let last = journal.last();
        assert_eq!(last.len(), REMEMBERED);
        assert_eq!(last[0].message, "once");
        assert_eq!(last[REMEMBERED - 1].message, (3 * REMEMBERED - 1).to_string());
    }
}
