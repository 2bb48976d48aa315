//! Asks a candidate to accept: by connections that the kernel gives to it alone (`Steering::is_probe`).
//!
//! A server may listen long before it can answer, or without ever being able to: a master whose workers die, an application that
//! is still being read. What it accepts it takes care of, whatever the protocol.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    api::{EventKind, Problem, ProblemKind},
    daemon::{
        agent::Agent,
        step::{Step, change},
    },
    host::{
        probe::{Look, Probe},
        sock_diag,
    },
    rollout::{Event, Generation, Origin, Phase, PortHold},
    service::{Endpoint, GenerationId, ServiceId},
};

/// A candidate that is asked, or was.
#[derive(Debug)]
pub(in crate::daemon) struct Probing {
    probe: Probe,
    /// The listeners that it had when it was asked.
    listeners: BTreeSet<u64>,
    stage: Stage,
    begun: Instant,
    wait: Duration,
    next_look: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked,
    /// It has accepted, and may end the connections in its own way for a while.
    Accepted,
}

/// Between two looks at a server that may have accepted without a word, which wakes nobody: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(50);
/// How long a server may take to close a connection whose client has nothing to say. Then it is reset.
const CLOSING: Duration = Duration::from_secs(1);
/// When a handshake with ourselves is given up: something on this host keeps it from us.
const UNANSWERED: Duration = Duration::from_secs(3);

impl Probing {
    /// The port that its connections come from, while it matters.
    fn port(&self) -> Option<u16> {
        (self.stage == Stage::Asked).then(|| self.probe.port())
    }
}

impl Agent {
    /// Connects to every endpoint of a candidate. One that is being asked already goes on, unless a listener that the
    /// connections may wait at has gone.
    pub(in crate::daemon) fn probe(&mut self, generation: GenerationId) -> Result<(), Problem> {
        let Some(known) = self.generation(generation) else { return Ok(()) };
        if !matches!(known.phase, Phase::Starting { listens: true, .. }) {
            return Ok(());
        }
        let listeners: BTreeSet<_> = known.listeners.iter().map(|it| it.cookie).collect();
        if self.probes.get(&generation).is_some_and(|it| it.listeners.is_subset(&listeners)) {
            return Ok(());
        }
        self.end_probe(generation);
        let endpoints = self.record(generation.service).service.endpoints.clone();
        // Two endpoints can be reached by one address, as IPv4 and all addresses are.
        let to: BTreeSet<_> = endpoints.iter().flat_map(addresses).collect();
        let to: Vec<_> = to.into_iter().collect();
        let probe = Probe::to(&to).map_err(|error| {
            Problem::new(ProblemKind::Failed, "take a port to probe from").because(&error)
        })?;
        let reached = probe.reaches();
        let beyond = |it: &&Endpoint| addresses(it).iter().all(|to| !reached.contains(to));
        if let Some(endpoint) = endpoints.iter().find(beyond) {
            self.warn_of_silence(generation, &format!("{endpoint} is no address of this host"));
        }
        if reached.is_empty() {
            return self.switch(generation, Event::Accepted(generation.number));
        }
        change(Step::Probe, || {
            let probed = Some((generation.number, probe.port()));
            self.datapath.set_probe(generation.service, probed)?;
            probe.connect();
            Ok(())
        })?;
        let now = Instant::now();
        let (stage, wait) = (Stage::Asked, FIRST_LOOK);
        let watched = probe.sockets().try_for_each(|it| self.watcher.watch_probe(generation, it));
        if let Err(error) = watched {
            tracing::debug!(%error, "nobody tells what becomes of a probe: it is looked at");
        }
        let probing = Probing { probe, listeners, stage, begun: now, wait, next_look: now };
        self.probes.insert(generation, probing);
        self.look_at_probe(generation);
        Ok(())
    }

    /// When the next probe is looked at.
    pub(in crate::daemon) fn next_probe_look(&self) -> Option<Instant> {
        self.probes.values().map(|it| it.next_look).min()
    }

    /// Looks at the probes whose time has come.
    pub(in crate::daemon) fn look_at_probes_where_due(&mut self) {
        let now = Instant::now();
        let due = self.probes.iter().filter(|(_, it)| it.next_look <= now);
        for generation in due.map(|(generation, _)| *generation).collect::<Vec<_>>() {
            self.look_at_probe(generation);
        }
    }

    /// Looks whether a candidate has accepted.
    pub(in crate::daemon) fn look_at_probe(&mut self, generation: GenerationId) {
        let Some(probing) = self.probes.get_mut(&generation) else { return };
        if probing.stage == Stage::Accepted {
            if probing.probe.is_over() || probing.begun.elapsed() >= CLOSING {
                self.end_probe(generation);
            } else {
                probing.next_look = probing.begun + CLOSING;
            }
            return;
        }
        let looked = match probing.probe.look() {
            Ok(look) => self.note_probe(generation, look),
            Err(error) => Err(error.into()),
        };
        if let Some(probing) = self.probes.get_mut(&generation)
            && probing.stage == Stage::Asked
        {
            probing.next_look = Instant::now() + probing.wait;
            probing.wait = (probing.wait * 2).min(LAST_LOOK);
        }
        self.note_look(generation, looked);
    }

    fn note_probe(&mut self, generation: GenerationId, look: Look) -> Result<(), Problem> {
        let Some(probing) = self.probes.get(&generation) else { return Ok(()) };
        match look {
            Look::Waiting => self.note_half_accepted(generation),
            Look::Unanswered if probing.begun.elapsed() < UNANSWERED => Ok(()),
            Look::Unanswered => {
                self.warn_of_silence(generation, "this host does not reach its own address");
                self.note_accepted(generation)
            }
            // A connection that is gone may have waited at a listener that closed, and one that somebody has accepted may have
            // been moved away from it. While all are there, neither is so.
            Look::Accepted | Look::Reset if self.has_all_listeners(generation)? => {
                self.note_accepted(generation)
            }
            Look::Accepted | Look::Reset | Look::Refused => {
                self.end_probe(generation);
                self.looks.insert(generation, Instant::now() + LAST_LOOK);
                Ok(())
            }
        }
    }

    /// One endpoint may have a server behind it, and another one none.
    fn note_half_accepted(&mut self, generation: GenerationId) -> Result<(), Problem> {
        let Some(probing) = self.probes.get(&generation) else { return Ok(()) };
        if probing.begun.elapsed() < UNANSWERED / 2 {
            return Ok(());
        }
        let waiting: Vec<_> = probing.probe.waits_at().iter().map(ToString::to_string).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let why = format!("nothing on {}", waiting.join(", "));
        self.feed(generation.service, Event::NotYet(generation.number, why))
    }

    fn note_accepted(&mut self, generation: GenerationId) -> Result<(), Problem> {
        if let Some(probing) = self.probes.get_mut(&generation) {
            let now = Instant::now();
            (probing.stage, probing.begun, probing.next_look) =
                (Stage::Accepted, now, now + CLOSING);
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
    ) -> Result<(), Problem> {
        self.remember_half_open(generation.service)?;
        self.feed(generation.service, by)?;
        if self.generation(generation).is_some_and(|it| it.hold == PortHold::Moved) {
            self.warn_of_cookies(generation);
        }
        self.guard_queues(generation.service);
        Ok(())
    }

    fn has_all_listeners(&self, generation: GenerationId) -> Result<bool, Problem> {
        let Some(probing) = self.probes.get(&generation) else { return Ok(false) };
        let live: BTreeSet<_> = sock_diag::listeners()?.into_iter().map(|it| it.cookie.0).collect();
        Ok(probing.listeners.is_subset(&live))
    }

    /// What the kernel is to take for a probe of this service.
    pub(in crate::daemon) fn probe_of(&self, id: ServiceId) -> Option<(u32, u16)> {
        let asked = |(of, probing): (&GenerationId, &Probing)| {
            probing.port().filter(|_| of.service == id).map(|port| (of.number.0, port))
        };
        self.probes.iter().find_map(asked)
    }

    /// Asks no more, or has its answer.
    pub(in crate::daemon) fn end_probe(&mut self, generation: GenerationId) {
        let Some(probing) = self.probes.remove(&generation) else { return };
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
    ) -> Result<(), Problem> {
        let Some(known) = self.generation(generation) else { return Ok(()) };
        let hold = known.hold;
        let event = match self.first_without_listener(generation)? {
            None => Event::Covers(generation.number, hold),
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
    ) -> Result<(), Problem> {
        let is_found = |it: &Generation| it.origin == Origin::Found;
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

fn addresses(endpoint: &Endpoint) -> Vec<SocketAddr> {
    let of = |ip| SocketAddr::new(ip, endpoint.port);
    endpoint.address.reachable_by_family().into_iter().map(of).collect()
}
