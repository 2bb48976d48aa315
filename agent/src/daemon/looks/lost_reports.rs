//! What to do when reports of the kernel programs were lost: they only say when to look, so everything is looked at.

use std::time::Instant;

use agent_api::EventKind;
use agent_terms::GenerationId;

use crate::daemon::looks::observe::LISTENER_LOOK;
use crate::daemon::{agent::Agent, world_error::WorldError};

impl Agent {
    /// Looks at everything that the lost reports may have been about.
    pub(in crate::daemon) fn note_lost_reports(&mut self, count: u64) {
        let message =
            format!("{count} reports of the kernel programs were lost: looking at everything");
        self.journal.note_agent(EventKind::Warning, message);
        if let Err(problem) = self.look_for_closed_listeners() {
            self.journal.note_agent(
                EventKind::Warning,
                format!("cannot look for closed listeners: {}", problem.in_full()),
            );
        }
        for (id, record) in &self.records {
            for generation in record.service.generations() {
                let generation = GenerationId { service: *id, number: generation.number() };
                let soon = Instant::now() + LISTENER_LOOK;
                self.memories.of_mut(generation).next_look = Some(soon);
            }
        }
    }

    /// As if the listeners that are closed had been reported now.
    ///
    /// # Errors
    ///
    /// When the kernel does not list those that are there.
    pub(in crate::daemon) fn look_for_closed_listeners(&mut self) -> Result<(), WorldError> {
        let live = self.live_listeners()?;
        let mut closed = Vec::new();
        for (id, record) in &self.records {
            for generation in record.service.generations() {
                let key = GenerationId { service: *id, number: generation.number() };
                if generation.listeners().iter().any(|it| !live.contains(&it.cookie)) {
                    closed.push(key);
                }
            }
        }
        for generation in closed {
            self.note_listener_gone(generation);
        }
        Ok(())
    }
}
