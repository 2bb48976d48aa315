//! Fills kernel maps that were made anew from what the state says, and has them take the place of what steered before.
//!
//! The order is that of an attach: programs that count come before tags, tags before flows, and steering comes last, when
//! everything that it leads to is there. Until then connections go where they went: by what an earlier agent left, or, where
//! that is gone, by the kernel's own lookup. What was counted before is not known any more; the counters begin with the flows
//! that are open.

use std::fs::File;

use agent_api::{EventKind, Problem};
use agent_rollout::{Effect, Event, Generation, Origin, Phase, Service};
use agent_terms::{Endpoint, GenerationId, GenerationNumber, ServiceId};

use crate::{
    daemon::{
        agent::Agent,
        effects::carry_out,
        identify::found,
        state::clock,
        step::{Step, change},
    },
    datapath::ListenerToAdopt,
    host::sock_diag::{self, Listener},
};

impl Agent {
    /// Does all of it. `lost` says what was wrong with the former maps.
    ///
    /// # Errors
    ///
    /// Names the step. What steered before steers on.
    pub(in crate::daemon) fn build(
        &mut self,
        cgroup: &File,
        lost: Option<&str>,
    ) -> Result<(), Problem> {
        let ids: Vec<ServiceId> = self.records.keys().copied().collect();
        let mut has_changed = false;
        for id in &ids {
            if let Some(what) = lost {
                let name = self.record(*id).service.name().clone();
                let message =
                    format!("the pins were not usable ({what}): built anew from the state");
                self.journal.note(&name, None, EventKind::Warning, message);
            }
            let rebuilt = Event::MapsRebuilt(self.listening(*id)?);
            let service = &mut self.record_mut(*id).service;
            let before = service.clone();
            // Where it steers to is told to the new maps with all else, below.
            let steering = service.apply(rebuilt, clock::now())?;
            debug_assert!(steering.iter().all(|it| matches!(it, Effect::Steer(_))));
            has_changed |= *service != before;
        }
        // Before anything steers: who was to be told to end waits again, also for an agent that comes after this one.
        if has_changed {
            self.save_or_owe();
        }
        self.set_endpoints()?;
        for id in &ids {
            self.describe(*id)?;
        }
        change(Step::Assist, || Ok(self.datapath.assist(cgroup)?))?;
        // From here on whoever is born is followed; those that live are taken in now.
        for id in &ids {
            for number in self.numbers(*id) {
                let key = GenerationId { service: *id, number };
                let pids = self.pids_of(key)?;
                self.enlist(key, pids)?;
            }
        }
        for id in &ids {
            self.place_again(*id)?;
        }
        // A second look finds those that became established while the first one was made.
        for id in ids.iter().chain(&ids) {
            if self.attribute_flows(*id)? == 0 {
                self.unattributed.remove(id);
            } else {
                self.unattributed.insert(*id);
            }
        }
        change(Step::TakeOverSteering, || Ok(self.datapath.take_over_steering(cgroup)?))
    }

    fn numbers(&self, id: ServiceId) -> Vec<GenerationNumber> {
        self.record(id).service.generations().iter().map(|it| it.number()).collect()
    }

    /// Where connections are to go, and what new binds meet.
    fn describe(&mut self, id: ServiceId) -> Result<(), Problem> {
        let record = self.record(id).clone();
        if let Some(targets) = record.service.targets() {
            change(Step::Steer, || Ok(self.datapath.steer(id, &carry_out::steering(&targets))?))?;
        }
        for generation in record.service.generations() {
            let key = GenerationId { service: id, number: generation.number() };
            if !matches!(generation.phase(), Phase::Starting { .. }) {
                self.datapath.count_flows_of(key)?;
            }
            self.describe_binds(key, generation, record.context.uid)?;
        }
        Ok(())
    }

    /// What new binds of a launched generation meet, and which port those were for that were moved.
    pub(in crate::daemon) fn describe_binds(
        &mut self,
        key: GenerationId,
        generation: &Generation,
        launched_as: u32,
    ) -> Result<(), Problem> {
        if !matches!(generation.origin(), Origin::Launched { .. }) {
            return Ok(());
        }
        let rule = self.bind_rule(key, launched_as)?;
        change(Step::SetBindRule, || {
            self.datapath.set_bind_rule(key, rule)?;
            let moved = generation.listeners().iter();
            for (cookie, public) in moved.filter_map(|it| Some((it.cookie, it.public?))) {
                self.datapath.note_moved(cookie, public)?;
            }
            Ok(())
        })
    }

    /// Takes over again the listeners that the state knows, as far as they are there.
    fn place_again(&mut self, id: ServiceId) -> Result<(), Problem> {
        let service = self.record(id).service.clone();
        let all = sock_diag::listeners()?;
        for generation in service.generations().iter().filter(|it| it.can_serve()) {
            let theirs: Vec<_> = all
                .iter()
                .filter(|it| generation.listeners().iter().any(|known| known.cookie == it.cookie.0))
                .cloned()
                .collect();
            if theirs.len() < generation.listeners().len() {
                let missing = generation.listeners().len() - theirs.len();
                let message = format!(
                    "{missing} listeners of generation {} were closed while no agent ran",
                    generation.number()
                );
                let number = Some(generation.number());
                self.journal.note(service.name(), number, EventKind::Warning, message);
            }
            let (endpoints, to_adopt) = served(&service, generation, &theirs);
            let key = GenerationId { service: id, number: generation.number() };
            change(Step::TakeOverListeners, || {
                Ok(self.datapath.adopt_listeners(key, &endpoints, &to_adopt)?)
            })?;
        }
        Ok(())
    }
}

/// What these listeners of a generation serve, and how they are to be taken over.
pub(in crate::daemon) fn served(
    service: &Service,
    generation: &Generation,
    listeners: &[Listener],
) -> (Vec<Endpoint>, Vec<ListenerToAdopt>) {
    let to_adopt =
        found::to_adopt(listeners, |it| public_port(service, generation, it.cookie.0, it.port));
    let is_served = |endpoint: &&Endpoint| {
        let serves = endpoint.address;
        to_adopt.iter().any(|it| it.port == endpoint.port && it.address.serves(serves))
    };
    (service.endpoints().iter().filter(is_served).cloned().collect(), to_adopt)
}

/// For which public port a listener stands.
fn public_port(service: &Service, generation: &Generation, cookie: u64, bound: u16) -> u16 {
    let written = generation.listeners().iter().find(|it| it.cookie == cookie);
    let is_public = |port: &u16| service.endpoints().iter().any(|it| it.port == *port);
    let only = service.endpoints().first().map_or(bound, |endpoint| endpoint.port);
    written.and_then(|it| it.public).or_else(|| Some(bound).filter(is_public)).unwrap_or(only)
}
