//! Asks a candidate to accept: by connections that the kernel gives to it alone (`Steering::is_probe`).
//!
//! A server may listen long before it can answer, or without ever being able to: a master whose workers die, an application that
//! is still being read. What it accepts it takes care of, whatever the protocol.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Instant};

use agent_api::EventKind;
use agent_rollout::{Event, Generation, Origin, Phase, PortHold};
use agent_terms::{Endpoint, GenerationId, ServiceId};

use super::probing::{LAST_LOOK, Probing};
use crate::{
    daemon::{
        agent::{Agent, RETRY},
        memory::Memory,
        step::{Step, take},
        world_error::WorldError,
    },
    host::{
        loopback,
        probe::{Look, Probe},
        sock_diag,
    },
};

impl Agent {
    /// Connects to every endpoint of a candidate. One that is being asked already goes on, unless a listener that the
    /// connections may wait at has gone.
    pub(in crate::daemon) fn probe(&mut self, generation: GenerationId) -> Result<(), WorldError> {
        let Some(known) = self.generation(generation) else { return Ok(()) };
        if !matches!(known.phase(), Phase::Starting { listens: true, .. }) {
            return Ok(());
        }
        let listeners: BTreeSet<_> = known.listeners().iter().map(|it| it.cookie).collect();
        if self.probing(generation).is_some_and(|it| it.waits_only_at(&listeners)) {
            return Ok(());
        }
        self.end_probe(generation);
        let endpoints = self.record(generation.service).service.endpoints().to_vec();
        // Two endpoints can be reached by one address, as IPv4 and all addresses are.
        let to: BTreeSet<_> = endpoints.iter().flat_map(addresses).collect();
        let to: Vec<_> = to.into_iter().collect();
        let mut probe = match Probe::to(&to) {
            Ok(probe) => probe,
            // Each of them has a connection, or had one a minute ago: one may be free soon.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                self.look_later(generation, RETRY);
                let why = "the agent could not connect to it, for no local port is free: widen `sysctl net.ipv4.ip_local_port_range`";
                return self
                    .feed(generation.service, Event::NotYet(generation.number, why.to_owned()));
            }
            Err(error) => return Err(WorldError::ProbePort(error)),
        };
        let reached = probe.reaches();
        let beyond = |it: &&Endpoint| addresses(it).iter().all(|to| !reached.contains(to));
        if let Some(endpoint) = endpoints.iter().find(beyond) {
            self.warn_of_silence(generation, &format!("{endpoint} is no address of this host"));
        }
        if reached.is_empty() {
            return self.switch(generation, Event::Accepted(generation.number));
        }
        take(Step::Probe, || {
            let probed = Some((generation.number, probe.port()));
            self.datapath.set_probe(generation.service, probed)?;
            probe.connect();
            Ok(())
        })?;
        let watched = probe.sockets().try_for_each(|it| self.watcher.watch_probe(generation, it));
        if let Err(error) = watched {
            tracing::debug!(%error, "nobody tells what becomes of a probe: it is looked at");
        }
        self.memories.of_mut(generation).probing = Some(Probing::begin(probe, listeners));
        self.look_at_probe(generation);
        Ok(())
    }

    /// When the next probe is looked at.
    pub(in crate::daemon) fn next_probe_look(&self) -> Option<Instant> {
        self.memories.times(next_look).map(|(_, at)| at).min()
    }

    /// Looks at the probes whose time has come.
    pub(in crate::daemon) fn look_at_probes_where_due(&mut self) {
        for generation in self.memories.due(Instant::now(), next_look) {
            self.look_at_probe(generation);
        }
    }

    /// Looks whether a candidate has accepted.
    pub(in crate::daemon) fn look_at_probe(&mut self, generation: GenerationId) {
        let Some(probing) = self.probing_mut(generation) else { return };
        if probing.has_accepted() {
            if probing.is_closed() {
                self.end_probe(generation);
            }
            return;
        }
        let looked = match probing.look() {
            Ok(look) => self.note_probe(generation, look),
            Err(error) => Err(error.into()),
        };
        if let Some(probing) = self.probing_mut(generation) {
            probing.look_again();
        }
        self.note_look(generation, looked);
    }

    fn note_probe(&mut self, generation: GenerationId, look: Look) -> Result<(), WorldError> {
        let Some(probing) = self.probing(generation) else { return Ok(()) };
        match look {
            Look::Waiting => self.note_half_accepted(generation),
            Look::Unanswered if !probing.is_unanswered() => Ok(()),
            Look::Unanswered => {
                let why = match loopback::is_down() {
                    true => format!("the loopback interface is down (`{}`)", loopback::FIX),
                    false => "this host does not reach its own address".to_owned(),
                };
                self.warn_of_silence(generation, &why);
                self.note_accepted(generation)
            }
            // A connection that is gone may have waited at a listener that closed, and one that somebody has accepted may have
            // been moved away from it. While all are there, neither is so.
            Look::Accepted | Look::Reset if self.has_all_listeners(generation)? => {
                self.note_accepted(generation)
            }
            Look::Accepted | Look::Reset | Look::Refused => {
                self.end_probe(generation);
                self.look_later(generation, LAST_LOOK);
                Ok(())
            }
        }
    }

    /// One endpoint may have a server behind it, and another one none.
    fn note_half_accepted(&mut self, generation: GenerationId) -> Result<(), WorldError> {
        let Some(probing) = self.probing(generation) else { return Ok(()) };
        let waiting = probing.waits_for_long_at();
        let waiting: Vec<_> = waiting.iter().map(ToString::to_string).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let why = format!("nothing on {}", waiting.join(", "));
        self.feed(generation.service, Event::NotYet(generation.number, why))
    }

    fn note_accepted(&mut self, generation: GenerationId) -> Result<(), WorldError> {
        if let Some(probing) = self.probing_mut(generation) {
            probing.note_accepted();
        }
        self.switch(generation, Event::Accepted(generation.number))?;
        // What the server closed already is told by nobody once more.
        self.look_at_probe(generation);
        Ok(())
    }

    /// Makes a candidate the primary by this event.
    ///
    /// # Errors
    ///
    /// When the kernel does not say what is half-open: that belongs to the generation that had it at the switch.
    pub(in crate::daemon) fn switch(
        &mut self,
        generation: GenerationId,
        by: Event,
    ) -> Result<(), WorldError> {
        self.remember_half_open(generation.service)?;
        self.feed(generation.service, by)?;
        if self.generation(generation).is_some_and(|it| it.hold() == PortHold::Moved) {
            self.warn_of_cookies(generation);
        }
        self.guard_queues(generation.service);
        Ok(())
    }

    fn has_all_listeners(&self, generation: GenerationId) -> Result<bool, WorldError> {
        let Some(probing) = self.probing(generation) else { return Ok(false) };
        let live: BTreeSet<_> = sock_diag::listeners()?.into_iter().map(|it| it.cookie.0).collect();
        Ok(probing.waits_only_at(&live))
    }

    /// What the kernel is to take for a probe of this service.
    pub(in crate::daemon) fn probe_of(&self, id: ServiceId) -> Option<(u32, u16)> {
        let asked = |(of, memory): (GenerationId, &Memory)| {
            let port = memory.probing.as_ref()?.port().filter(|_| of.service == id)?;
            Some((of.number.0, port))
        };
        self.memories.iter().find_map(asked)
    }

    pub(in crate::daemon) fn probing(&self, generation: GenerationId) -> Option<&Probing> {
        self.memories.of(generation)?.probing.as_ref()
    }

    fn probing_mut(&mut self, generation: GenerationId) -> Option<&mut Probing> {
        self.memories.known_mut(generation)?.probing.as_mut()
    }

    /// Asks no more, or has its answer.
    pub(in crate::daemon) fn end_probe(&mut self, generation: GenerationId) {
        let known = self.memories.known_mut(generation);
        let Some(probing) = known.and_then(|it| it.probing.take()) else { return };
        self.watcher.forget_probe(generation);
        if probing.port().is_some() {
            self.forget_probes_of(generation.service);
        }
    }

    /// From now on the kernel takes nothing for a probe. If that fails, it is our own port at our own address that would be
    /// refused, until the next switch.
    pub(in crate::daemon) fn forget_probes_of(&mut self, id: ServiceId) {
        if let Err(error) = self.datapath.set_probe(id, None) {
            tracing::warn!(%error, "the kernel still knows of a probe");
        }
    }

    /// A found candidate is not looked for by its processes: it has the listeners that it was found with, or fails.
    pub(in crate::daemon) fn look_at_found_candidate(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let Some(known) = self.generation(generation) else { return Ok(()) };
        let listening = known.listening();
        let event = match self.first_without_listener(generation)? {
            None => Event::Covers(generation.number, listening),
            Some(endpoint) => {
                let why = format!("it has closed its listener on {endpoint}");
                Event::Failed(generation.number, why)
            }
        };
        self.feed(generation.service, event)
    }

    /// A candidate closed a listener, at which probes may wait.
    pub(in crate::daemon) fn note_candidate_closed(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let is_found = |it: &Generation| *it.origin() == Origin::Found;
        match self.generation(generation).map(is_found) {
            Some(true) => self.look_at_found_candidate(generation),
            Some(false) => self.look_for_listeners(generation),
            None => Ok(()),
        }
    }

    fn warn_of_silence(&mut self, generation: GenerationId, why: &str) {
        let message = format!(
            "generation {} cannot be asked to accept: {why}; that it listens has to be enough",
            generation.number
        );
        self.note(generation, EventKind::Warning, message);
    }
}

fn next_look(memory: &Memory) -> Option<Instant> {
    memory.probing.as_ref().map(Probing::next_look)
}

fn addresses(endpoint: &Endpoint) -> Vec<SocketAddr> {
    let of = |ip| SocketAddr::new(ip, endpoint.port);
    endpoint.address.reachable_by_family().into_iter().map(of).collect()
}
