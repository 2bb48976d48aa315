//! From the listeners that a generation's processes hold to the one that serves.

use std::collections::HashSet;

use agent_api::EventKind;
use agent_rollout::{Event, ListenerRecord, Listening, Origin, Phase, PortHold, Readiness};
use agent_terms::{Endpoint, GenerationId};

use crate::daemon::looks::observe::LISTENER_LOOK;
use crate::{
    daemon::{
        agent::Agent,
        identify::{found, own_program::OWN_PROGRAM},
        step::{Step, take},
        world_error::WorldError,
    },
    datapath::{DatapathError, ListenerToAdopt},
    host::{
        holders,
        sock_diag::{self, Listener},
    },
};

/// Listeners of a generation that serve the service.
pub(in crate::daemon) struct Offer {
    pub(in crate::daemon) serving: Vec<Listener>,
    pub(in crate::daemon) records: Vec<ListenerRecord>,
    pub(in crate::daemon) to_adopt: Vec<ListenerToAdopt>,
    pub(in crate::daemon) hold: PortHold,
}

impl Agent {
    /// Whether the candidate's processes listen on every endpoint: then its listeners are put into the kernel maps.
    pub(in crate::daemon) fn look_for_listeners(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let listeners = self.listeners_held_by(generation)?;
        self.introduce(generation, &listeners)
    }

    fn listeners_held_by(&self, generation: GenerationId) -> Result<Vec<Listener>, WorldError> {
        let pids = self.pids_of(generation)?;
        let all = sock_diag::listeners()?;
        let inodes = all.iter().map(|listener| listener.inode).collect();
        let holders = holders::holders_among(pids, &inodes)?.found;
        let held: HashSet<_> = holders.into_iter().flat_map(|holder| holder.inodes).collect();
        Ok(all.into_iter().filter(|listener| held.contains(&listener.inode)).collect())
    }

    /// A server that serves may replace its listeners, or add some for new workers: by any process that was born of it.
    pub(in crate::daemon) fn look_for_new_listeners(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let held = self.listeners_held_by(generation)?;
        let Offer { serving, records, to_adopt, hold } = self.offer_of(generation, &held)?;
        let service = &self.record(generation.service).service;
        let Some(known) = service.generation(generation.number) else { return Ok(()) };
        let plain = serving.iter().any(|listener| listener.multipath);
        let known_already = known.listeners() == records && !known.is_deaf();
        if plain || known_already || records.is_empty() {
            return Ok(());
        }
        let endpoints = service.endpoints().to_vec();
        let adopted = take(Step::TakeOverListeners, || {
            match self.datapath.adopt_listeners(generation, &endpoints, &to_adopt) {
                Err(error) if error.is_about_closed_socket() || error.is_about_unfit_socket() => {
                    Ok(Err(error))
                }
                adopted => Ok(Ok(adopted?)),
            }
        })?;
        if let Err(error) = adopted {
            match error.is_about_unfit_socket() {
                true => self.tell_of_unfit_listener(generation, &error),
                // It closes and opens them as fast as they are looked at: what is there then shows in the next look.
                false => self.look_later(generation, LISTENER_LOOK),
            }
            return Ok(());
        }
        let listening = Listening { hold, listeners: records };
        self.feed(generation.service, Event::ListenersChanged(generation.number, listening))?;
        self.guard_queues(generation.service);
        match found::uncovered(&endpoints, &to_adopt) {
            None => self.feed(generation.service, Event::Listens(generation.number)),
            Some(_) => Ok(()),
        }
    }

    /// Once: it may make such listeners without end.
    fn tell_of_unfit_listener(&mut self, generation: GenerationId, error: &DatapathError) {
        if !std::mem::replace(&mut self.memories.of_mut(generation).has_unfit_listener, true) {
            let message =
                format!("generation {} gets none of its new listeners: {error}", generation.number);
            self.note(generation, EventKind::Warning, message);
        }
    }

    /// Makes a candidate with these listeners the primary if that is enough, has it asked to accept, or remembers what it lacks.
    pub(in crate::daemon) fn introduce(
        &mut self,
        generation: GenerationId,
        listeners: &[Listener],
    ) -> Result<(), WorldError> {
        let endpoints = self.record(generation.service).service.endpoints().to_vec();
        let Offer { serving, records, to_adopt, hold } = self.offer_of(generation, listeners)?;
        if serving.iter().any(|listener| listener.multipath) {
            // It is in nobody's way: as long as it lives, new connections are steered past it.
            let reason = "it listens with Multipath TCP, and the kernel lets nobody steer to such a listener";
            let failed = Event::Failed(generation.number, reason.to_owned());
            return self.feed(generation.service, failed);
        }
        let cookies: Vec<u64> = serving.iter().map(|it| it.cookie.0).collect();
        if !self.datapath.with_program(&cookies)?.own.is_empty() {
            // It took the place of ours in the group that both generations are in: nobody else had one there.
            self.guard_queues_again(generation.service);
            let failed = Event::Failed(generation.number, OWN_PROGRAM.to_owned());
            return self.feed(generation.service, failed);
        }
        if let Some(missing) = found::uncovered(&endpoints, &to_adopt) {
            let obstacle = obstacle(missing, listeners);
            self.end_probe(generation);
            return self.feed(generation.service, Event::Lacks(generation.number, obstacle));
        }
        let known = self.generation(generation);
        if known.is_some_and(|it| it.listeners() == records) && self.probing(generation).is_some() {
            return Ok(());
        }
        let adopted = take(Step::TakeOverListeners, || {
            match self.datapath.adopt_listeners(generation, &endpoints, &to_adopt) {
                Err(error)
                    if error.is_lack_of_room()
                        || error.is_about_closed_socket()
                        || error.is_about_unfit_socket() =>
                {
                    Ok(Err(error))
                }
                adopted => Ok(Ok(adopted?)),
            }
        })?;
        if let Err(error) = adopted {
            if error.is_about_closed_socket() {
                // A check of the configuration, for example. What is there now shows in the next look.
                self.look_later(generation, LISTENER_LOOK);
                return Ok(());
            }
            let failed = Event::Failed(generation.number, error.to_string());
            return self.feed(generation.service, failed);
        }
        let listening = Listening { hold, listeners: records };
        let covers = Event::Covers(generation.number, listening);
        match self.generation(generation).map(|it| it.phase()) {
            Some(Phase::Starting { ready: Readiness::Accept, .. }) => {
                self.feed(generation.service, covers)
            }
            _ => self.switch(generation, covers),
        }
    }

    /// Which of a generation's listeners serve the service, and how.
    pub(in crate::daemon) fn offer_of(
        &self,
        generation: GenerationId,
        listeners: &[Listener],
    ) -> Result<Offer, WorldError> {
        let endpoints = self.record(generation.service).service.endpoints();
        let public = self.public_ports(generation, endpoints, listeners)?;
        let port_of = |listener: &Listener| {
            public
                .iter()
                .find(|(cookie, _)| *cookie == listener.cookie.0)
                .map_or(listener.port, |(_, port)| *port)
        };
        // Of the connections that steering leads to one on an interface, those by all others would be answered by nobody.
        let is_public = |it: &&Listener| {
            it.interface == 0 && endpoints.iter().any(|endpoint| endpoint.port == port_of(it))
        };
        let serving: Vec<_> = listeners.iter().filter(is_public).cloned().collect();
        let to_adopt = found::to_adopt(&serving, port_of);
        let hold = found::hold(&serving, port_of);
        let records = found::records(&serving, port_of);
        Ok(Offer { serving, records, to_adopt, hold })
    }

    /// The public port of each listener: the one it asked for where its bind was moved, and for a server that was introduced on
    /// another port the service's only one. Whatever else a found server listens on is its own.
    fn public_ports(
        &self,
        generation: GenerationId,
        endpoints: &[Endpoint],
        listeners: &[Listener],
    ) -> Result<Vec<(u64, u16)>, WorldError> {
        let found = self.generation(generation).filter(|it| *it.origin() == Origin::Found);
        let is_public = |port: u16| endpoints.iter().any(|endpoint| endpoint.port == port);
        let is_elsewhere = !listeners.iter().any(|it| is_public(it.port));
        let only = endpoints.first().map(|endpoint| endpoint.port);
        let stands_for = |port: u16| match found {
            Some(known) if !is_public(port) && known.listeners().is_empty() => {
                only.filter(|_| is_elsewhere)
            }
            Some(known) if !is_public(port) => {
                known.listeners().iter().find(|it| it.bound.port() == port)?.public
            }
            Some(_) | None => None,
        };
        let mut public = Vec::new();
        for listener in listeners {
            let moved_from = self.datapath.moved_from(listener.cookie.0)?;
            let port = moved_from.or_else(|| stands_for(listener.port)).unwrap_or(listener.port);
            public.push((listener.cookie.0, port));
        }
        Ok(public)
    }
}

fn obstacle(missing: &Endpoint, listeners: &[Listener]) -> String {
    if listeners.is_empty() {
        return "it does not listen".to_owned();
    }
    let place = |it: &Listener| {
        let only = if it.interface == 0 { "" } else { " of one network interface" };
        format!("{}:{}{only}", found::address_of(it), it.port)
    };
    let places: Vec<_> = listeners.iter().map(place).collect();
    format!(
        "it listens on {}, not on {missing}: let it listen there as well, or, if the service is to be served there no longer, \
         detach it and attach the rest (`--address`)",
        places.join(", ")
    )
}
