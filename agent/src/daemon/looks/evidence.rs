//! What the world shows of a service, whatever was written down.

use std::collections::{BTreeSet, HashSet};

use agent_ebpf::steering::{NO_GENERATION, Steering};
use agent_rollout::{Event, Generation, Phase, Seen, Targets};
use agent_terms::{Endpoint, GenerationId, GenerationNumber, ServiceId};

use crate::{
    daemon::{agent::Agent, identify::found, world_error::WorldError},
    host::process,
};

impl Agent {
    /// What tells which effects were executed before a restart.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub(in crate::daemon) fn seen(&self, id: ServiceId) -> Result<Seen, WorldError> {
        let mut seen = Seen {
            listening: self.listening(id)?,
            steering: self.datapath.steering(id)?.map(|steering| targets(&steering)),
            mapped: self.datapath.generations(id)?,
            ..Seen::default()
        };
        for generation in self.record(id).service.generations() {
            let key = GenerationId { service: id, number: generation.number() };
            if !self.pids_of(key)?.is_empty() {
                seen.alive.insert(generation.number());
            }
        }
        Ok(seen)
    }

    /// The generations of which a listener is open that is written down.
    ///
    /// # Errors
    ///
    /// When the kernel does not list them.
    pub(in crate::daemon) fn listening(
        &self,
        id: ServiceId,
    ) -> Result<BTreeSet<GenerationNumber>, WorldError> {
        let open: HashSet<_> = self.listeners_of(id)?.into_iter().map(|it| it.cookie.0).collect();
        let listens =
            |it: &&Generation| it.listeners().iter().any(|known| open.contains(&known.cookie));
        let generations = self.record(id).service.generations();
        Ok(generations.iter().filter(listens).map(|it| it.number()).collect())
    }

    /// A listener of a generation was closed. What counts is whether one is left for each endpoint.
    pub(in crate::daemon) fn note_listener_gone(&mut self, generation: GenerationId) {
        let phase = self.generation(generation).map(|it| it.phase());
        let looked = match phase {
            Some(Phase::Starting { .. }) => self.note_candidate_closed(generation),
            Some(_) | None => self.look_for_deafness(generation),
        };
        self.note_look(generation, looked);
    }

    /// The same after a look that failed, when nobody knows whether it was about a closed listener.
    ///
    /// # Errors
    ///
    /// When the kernel still does not say.
    pub(in crate::daemon) fn look_again_for_deafness(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let listened = self.listening_generation(generation).is_some();
        if !listened || self.first_without_listener(generation)?.is_none() {
            return Ok(());
        }
        self.look_for_deafness(generation)
    }

    fn look_for_deafness(&mut self, generation: GenerationId) -> Result<(), WorldError> {
        let Some(known) = self.listening_generation(generation) else { return Ok(()) };
        let is_primary = *known.phase() == Phase::Primary;
        // One that dies closes its listeners on the way: its end is told by the watcher.
        if known.is_deaf() || !self.lives_on(generation)? {
            return Ok(());
        }
        let number = generation.number;
        if is_primary {
            // It may have replaced it by another one.
            self.look_for_new_listeners(generation)?;
        }
        let Some(endpoint) = self.first_without_listener(generation)? else {
            // Servers that recycle their workers do it all the time; how many it has left, `status` shows.
            return Ok(());
        };
        if is_primary {
            let message =
                format!("generation {number} lives, but closed its last listener on {endpoint}");
            self.warn_of(generation, message);
        }
        self.feed(generation.service, Event::Deaf(number))
    }

    /// A generation that was ready once.
    fn listening_generation(&self, generation: GenerationId) -> Option<&Generation> {
        let known =
            self.record_if_any(generation.service)?.service.generation(generation.number)?;
        (!matches!(known.phase(), Phase::Starting { .. })).then_some(known)
    }

    /// Whether any process of the generation is there and not about to be gone.
    pub(in crate::daemon) fn lives_on(&self, generation: GenerationId) -> Result<bool, WorldError> {
        for pid in self.pids_of(generation)? {
            if !process::is_ending(pid)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(in crate::daemon) fn first_without_listener(
        &self,
        generation: GenerationId,
    ) -> Result<Option<Endpoint>, WorldError> {
        let service = &self.record(generation.service).service;
        let its = service.endpoints().iter().filter(|endpoint| endpoint.is_of(generation.number));
        let its: Vec<_> = its.cloned().collect();
        self.first_uncovered(generation, &its)
    }

    /// The first of these endpoints that a generation does not listen on.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub(in crate::daemon) fn first_uncovered(
        &self,
        generation: GenerationId,
        endpoints: &[Endpoint],
    ) -> Result<Option<Endpoint>, WorldError> {
        let service = &self.record(generation.service).service;
        let Some(known) = service.generation(generation.number) else { return Ok(None) };
        let cookies: HashSet<_> =
            known.listeners().iter().map(|listener| listener.cookie).collect();
        let mut left = self.listeners_of(generation.service)?;
        left.retain(|listener| cookies.contains(&listener.cookie.0));
        let offer = self.offer_of(generation, &left)?;
        Ok(found::uncovered(endpoints, &offer.to_adopt).cloned())
    }

    /// Whether somebody may be told to end: the primary listens, or nobody could stand in for it. Asked for just before that
    /// is decided, because what is reported about the primary may not have been taken from the queue yet.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub(in crate::daemon) fn primary_is_certain(
        &mut self,
        id: ServiceId,
    ) -> Result<bool, WorldError> {
        let Some(primary) = self.record(id).service.primary() else { return Ok(true) };
        let (key, phase) =
            (GenerationId { service: id, number: primary.number() }, primary.phase().clone());
        if phase == Phase::Dead || self.first_without_listener(key)?.is_none() {
            return Ok(true);
        }
        self.look_for_deafness(key)?;
        // One that is about to be gone is waited for: its end decides who serves.
        self.lives_on(key)
    }
}

/// Where the kernel steers to.
fn targets(steering: &Steering) -> Targets {
    let standbys = steering.standbys.iter().filter(|number| **number != NO_GENERATION);
    Targets {
        primary: GenerationNumber(steering.primary),
        standbys: standbys.copied().map(GenerationNumber).collect(),
    }
}
