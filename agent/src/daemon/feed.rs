//! What happens to a service, from its rollout to the world: decided, written down, carried out.

use std::time::Instant;

use agent_api::Problem;
use agent_rollout::Event;
use agent_terms::ServiceId;

use super::{
    agent::Agent,
    state::{clock, state_file::StateFile, troubles::Trouble, whereabouts::Whereabouts},
    step::{Step, take},
    world_error::WorldError,
};

impl Agent {
    /// Lets a service know what happened, writes the new state down, and then makes the world follow.
    ///
    /// # Errors
    ///
    /// Refuses a request that cannot be done or whose state cannot be written down: nothing has changed then. What has
    /// happened is never refused; see [`Self::save_or_owe`].
    pub(super) fn feed(&mut self, id: ServiceId, event: Event) -> Result<(), WorldError> {
        let Some(record) = self.records.get_mut(&id) else { return Ok(()) };
        let before = record.service.clone();
        let can_be_refused = event.can_be_refused();
        let effects = record.service.apply(event, clock::now())?;
        if record.service != before {
            if !can_be_refused {
                self.save_or_owe();
            } else if let Err(error) = self.save() {
                self.record_mut(id).service = before;
                return Err(WorldError::Unsaved(Box::new(error)));
            }
            self.note_changes(id, &before);
        }
        if !before.may_take_in() && self.record(id).service.may_take_in() {
            self.strangers.look_at(id, Instant::now());
        }
        self.outstanding.add(id, effects);
        self.finish_effects_of(id);
        self.hold_ports(id);
        self.remember_mark_of_another(id, &before);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// As [`Self::feed`], where nobody waits for the answer.
    pub(super) fn feed_quietly(&mut self, id: ServiceId, event: Event) {
        if let Err(error) = self.feed(id, event) {
            let problem = Problem::from(error);
            tracing::error!(%problem, causes = ?problem.causes, "an event was not taken");
        }
    }

    /// Writes the state down.
    ///
    /// # Errors
    ///
    /// When the file system refuses; the old state stays.
    pub(super) fn save(&mut self) -> Result<(), WorldError> {
        let state = StateFile {
            network_namespace: self.network_namespace,
            boot_id: self.boot_id.clone(),
            services: self.records.values().cloned().collect(),
            exit_when_detached: self.course.ends_with_last(),
            whereabouts: Some(Whereabouts::new(&self.places, self.groups.above())),
        };
        take(Step::WriteState, || Ok(state.write(&self.places.state_file())?))?;
        self.over(Trouble::Unsaved, "the state is written down again");
        Ok(())
    }

    /// Writes the state down, or goes on with it in memory and tries again: the world does not wait for a disk. Until then
    /// only that is done which can be taken back, because an agent that starts meanwhile knows the old state only.
    pub(super) fn save_or_owe(&mut self) {
        if let Err(error) = self.save() {
            let problem = Problem::from(error);
            let message = format!(
                "nothing is launched or ended until the state is saved: {}",
                problem.in_full()
            );
            self.trouble(Trouble::Unsaved, message);
        }
    }
}
