//! The agent in miniature: takes events, writes down, executes, looks, and comes back after a crash, as `daemon` does.

use std::{collections::VecDeque, time::Duration};

use agent_terms::GenerationNumber;

use super::{
    Halt, Mutation, Report, Simulation, broken,
    world::{Allowed, Server},
};
use crate::{DrainPolicy, Effect, Event, Flows, Generation, Kind, Phase, Queues, Service};

/// What is lost when it crashes.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) service: Service,
    /// Who is being asked to accept.
    asked: Option<GenerationNumber>,
    unfinished: VecDeque<Effect>,
}

impl Agent {
    /// One that knows what was written down, and what of it is still to be done.
    pub(super) fn coming_back(service: Service, effects: Vec<Effect>) -> Self {
        Self { service, asked: None, unfinished: effects.into() }
    }

    /// Whether all that was decided is done.
    pub(super) fn is_idle(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// A switch goes first, and takes the place of one that could not be executed yet.
    fn enqueue(&mut self, effects: Vec<Effect>) {
        let is_steer = |effect: &Effect| matches!(effect, Effect::Steer(_));
        for effect in effects {
            if is_steer(&effect) {
                self.unfinished.retain(|it| !is_steer(it));
                self.unfinished.push_front(effect);
            } else {
                self.unfinished.push_back(effect);
            }
        }
    }
}

impl Simulation {
    /// As `Agent::feed`: apply, write down, execute.
    pub(super) fn feed(&mut self, event: Event) -> Result<(), Halt> {
        self.note(|| format!("    {event:?}"));
        let (now, disk_full) = (self.now, self.disk_full);
        let Some(agent) = &mut self.agent else { return Ok(()) };
        let can_be_refused = event.can_be_refused();
        let before = agent.service.clone();
        let could = agent.service.may_take_in();
        let applied = agent.service.apply(event, now);
        match applied {
            // Nothing can be written down: whoever asks is told no.
            Ok(_) if disk_full && can_be_refused => agent.service = before,
            Ok(effects) => agent.enqueue(effects),
            Err(_) if agent.service == before => {}
            Err(refusal) => return broken(format!("{refusal} has changed the state")),
        }
        if !could && agent.service.may_take_in() {
            self.report(Report::Stranger);
        }
        if self.mutation == Some(Mutation::ActsBeforeItWrites) {
            self.finish_effects()?;
        }
        self.save()?;
        self.finish_effects()
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.service != self.disk)
    }

    pub(super) fn save(&mut self) -> Result<(), Halt> {
        if self.agent.as_ref().is_some_and(|agent| !agent.service.is_sound()) {
            return broken("what is written down is not sound".to_owned());
        }
        if self.is_unsaved() && !self.disk_full {
            self.may_crash()?;
            let Some(agent) = &self.agent else { return Ok(()) };
            self.disk.clone_from(&agent.service);
            if let Some(reached) = &mut self.reached {
                reached.note(&self.disk);
            }
            self.may_crash()?;
        }
        Ok(())
    }

    pub(super) fn finish_effects(&mut self) -> Result<(), Halt> {
        while let Some(effect) = self.next_effect() {
            self.may_crash()?;
            if self.fails() {
                self.agent.iter_mut().for_each(|it| it.unfinished.push_front(effect.clone()));
                return Ok(());
            }
            self.execute(effect)?;
            self.may_crash()?;
        }
        Ok(())
    }

    /// While the state is not saved, only what cannot wait for that.
    fn next_effect(&mut self) -> Option<Effect> {
        let hasty = [Some(Mutation::EndsUnsaved), Some(Mutation::ActsBeforeItWrites)];
        let saved = !self.is_unsaved() || hasty.contains(&self.mutation);
        let primary = self.world.steering.as_ref().map(|targets| targets.primary);
        let unfinished = &mut self.agent.as_mut()?.unfinished;
        match self.mutation {
            Some(Mutation::LastEffectFirst) if saved => unfinished.pop_back(),
            _ => {
                let next = unfinished.iter().position(|it| saved || it.cannot_wait(primary))?;
                unfinished.remove(next)
            }
        }
    }

    fn execute(&mut self, effect: Effect) -> Result<(), Halt> {
        self.note(|| format!("        {effect:?}"));
        match effect {
            Effect::Launch(number) if self.one_in(10) => {
                self.world.mapped.insert(number);
                self.feed(Event::Failed(number, String::new()))?;
                self.feed(Event::Exited(number))
            }
            Effect::Launch(number) => {
                let slow = self.one_in(3);
                let lenient = self.lenient;
                self.world.launch(number, slow, lenient)
            }
            Effect::Probe(number) => {
                if let Some(agent) = &mut self.agent {
                    agent.asked = Some(number);
                }
                Ok(())
            }
            Effect::Steer(mut targets) => {
                if self.mutation == Some(Mutation::ForgetsStandbys) {
                    targets.standbys.clear();
                }
                // With a full disk, one that failed before may carry a later decision that is in memory only.
                let in_memory = self.agent.as_ref().filter(|_| self.disk_full);
                let decided = in_memory.map_or(&self.disk, |agent| &agent.service);
                let leaves = |number| decided.generation(number).is_none_or(|it| !it.can_serve());
                let settling = decided.rollouts.iter().find(|it| {
                    let switches = it.to == targets.primary && it.switched == Some(self.now);
                    it.kind == Kind::Upgrade && switches && !it.is_ended()
                });
                // Only one that listens is worth to be kept.
                if let Some(settling) = settling.filter(|it| self.world.reachable(it.from)) {
                    let until = self.now.after(self.settle);
                    self.world.kept.insert(settling.from, (settling.to, until));
                }
                self.world.steer(targets, leaves)
            }
            Effect::Signal(number, _) => {
                self.world.signal(number, self.now)?;
                let slow = self.world.servers.get(&number).is_some_and(|it| it.slow && it.alive);
                if !slow {
                    // Of one that goes on listening nobody could tell that it was told, if this is not written down.
                    self.may_crash()?;
                }
                let (calm, disk_full) = (self.calm, self.disk_full);
                (self.calm, self.disk_full) = (calm || slow, disk_full && !slow);
                if self.mutation != Some(Mutation::ForgetsSignals) {
                    self.feed(Event::Told(number))?;
                }
                (self.calm, self.disk_full) = (calm, disk_full);
                Ok(())
            }
            Effect::Kill(number) => {
                self.world.die(number);
                self.report(Report::Exited(number));
                Ok(())
            }
            Effect::Forget(number) => self.world.forget(number),
        }
    }

    /// As the agent takes what is reported: it asks the world whether it is so.
    pub(super) fn take(&mut self, report: Report) -> Result<(), Halt> {
        match report {
            Report::Exited(number) if !self.lives(number) => self.feed(Event::Exited(number)),
            Report::Closed(number)
                if self.lives(number)
                    && !self.world.reachable(number)
                    && self.generation(number).is_some_and(|it| !it.deaf) =>
            {
                self.feed(Event::Deaf(number))
            }
            Report::Appeared(number) => self.look(number),
            Report::Stranger => self.look_for_successor(),
            Report::Exited(_) | Report::Closed(_) => Ok(()),
        }
    }

    /// Looks at one generation, as its phase wants it.
    pub(super) fn look(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        let Some(phase) = self.phase(number) else { return Ok(()) };
        let Some(server) = self.world.servers.get(&number).cloned() else { return Ok(()) };
        let idle = Duration::from_secs(if self.one_in(2) { 0 } else { 100 });
        let flows = Flows { open: server.flows(), queued: server.queued, idle };
        let queues = queues(server.half_open + server.queued);
        match phase {
            Phase::Starting { listens: false, .. } if server.hears() => self.cover(number),
            Phase::Starting { listens: true, .. } => self.ask(number),
            Phase::Primary if self.is_stuck(number) => self.feed(Event::Stuck(number)),
            Phase::Primary if server.hears() && self.is_deaf_to_the_agent(number) => {
                self.world.adopt(number);
                let listening = self.world.listening(number);
                if self.mutation != Some(Mutation::ForgetsListeners) {
                    self.feed(Event::ListenersChanged(number, listening))?;
                }
                self.feed(Event::Listens(number))
            }
            Phase::Clearing { .. } => self.feed(Event::Queues(number, queues)),
            Phase::Draining { .. } | Phase::Finishing { .. } => {
                self.feed(Event::Flows(number, flows))
            }
            Phase::Parting { .. } => self.look_last(number, idle),
            Phase::Starting { .. }
            | Phase::Primary
            | Phase::Dead
            | Phase::Standby { .. }
            | Phase::Stopping { .. } => Ok(()),
        }
    }

    fn cover(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        self.world.adopt(number);
        self.may_crash()?;
        let listening = self.world.listening(number);
        self.feed(Event::Covers(number, listening))
    }

    /// Looks at a candidate that listens, as far as was known.
    fn ask(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        let server = self.world.server(number)?.clone();
        let asked = self.agent.as_ref().is_some_and(|it| it.asked == Some(number));
        if !server.hears() || !self.world.adopted.contains(&number) {
            if let Some(agent) = &mut self.agent {
                agent.asked = None;
            }
            return match server.started_by_others {
                true => self.feed(Event::Failed(number, String::new())),
                false if server.hears() => self.cover(number),
                false => self.feed(Event::Lacks(number, String::new())),
            };
        }
        if !asked {
            return self.cover(number);
        }
        if self.world.probe(number) || self.mutation == Some(Mutation::TakesListeningForAccepting) {
            self.may_crash()?;
            return self.feed(Event::Accepted(number));
        }
        Ok(())
    }

    /// Whether it hears, for all that the agent knows, nobody.
    fn is_deaf_to_the_agent(&self, number: GenerationNumber) -> bool {
        let known = self.generation(number);
        !self.world.reachable(number)
            || known.is_some_and(|it| it.deaf || it.listening() != self.world.listening(number))
    }

    fn is_stuck(&self, number: GenerationNumber) -> bool {
        let stuck = |it: &Server| it.hears() && !it.accepts && it.queued > 2;
        let settles = self.agent.as_ref().and_then(|it| it.service.settling()) == Some(number);
        settles && self.world.servers.get(&number).is_some_and(stuck)
    }

    fn look_last(&mut self, number: GenerationNumber, idle: Duration) -> Result<(), Halt> {
        let hasty = self.mutation == Some(Mutation::LooksBeforeItSteers);
        let busy = self.is_unsaved() || self.agent.as_ref().is_some_and(|it| !it.is_idle());
        if busy && !hasty {
            return Ok(());
        }
        if self.mutation != Some(Mutation::TrustsThePrimary) && !self.primary_is_certain()? {
            return Ok(());
        }
        let Some(Phase::Parting { until, deadline, drain }) = self.phase(number) else {
            return Ok(());
        };
        // In the order in which a connection goes, and connections go meanwhile.
        let half_open = self.world.server(number)?.half_open;
        self.advance(number);
        let server = self.world.server(number)?.clone();
        let mut flows = Flows { open: server.flows(), queued: server.queued, idle };
        let mut queues = queues(half_open + server.queued);
        if self.mutation == Some(Mutation::LooksAway) {
            (queues, flows.open) = (Queues::Empty, 0);
        }
        let patient = drain.policy == DrainPolicy::Patient { idle: None };
        // What one that accepts nothing has is served as soon as it ends.
        let stuck = self.generation(number).is_some_and(|it| it.stuck);
        let allowed = Allowed {
            waiting: stuck || self.now >= until,
            flows: !patient || self.now >= deadline,
        };
        self.world.allowed.insert(number, allowed);
        let needed = self.is_needed(number);
        self.feed(Event::LastLook(number, queues, flows))?;
        let told =
            matches!(self.phase(number), Some(Phase::Finishing { .. } | Phase::Stopping { .. }));
        if told && needed {
            return broken(format!("{number} is told to end, and nobody else can serve"));
        }
        Ok(())
    }

    /// Whether it could serve and the primary cannot.
    fn is_needed(&self, number: GenerationNumber) -> bool {
        let primary = self.agent.as_ref().and_then(|it| it.service.primary());
        self.generation(number).is_some_and(Generation::can_take_over)
            && self.world.reachable(number)
            && !primary.is_some_and(|primary| self.world.reachable(primary.number))
    }

    fn primary_is_certain(&mut self) -> Result<bool, Halt> {
        let primary = self.agent.as_ref().and_then(|it| it.service.primary());
        let Some((number, phase)) = primary.map(|it| (it.number, it.phase.clone())) else {
            return Ok(true);
        };
        if phase == Phase::Dead || self.world.reachable(number) {
            return Ok(true);
        }
        self.take(Report::Closed(number))?;
        Ok(self.lives(number))
    }
}

fn queues(waiting: u64) -> Queues {
    if waiting == 0 { Queues::Empty } else { Queues::Waiting(waiting) }
}
