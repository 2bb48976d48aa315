//! Makes things happen, and lets all of it come to an end.

use std::time::Duration;

use agent_terms::{GenerationNumber, Signal};

use super::{Halt, Mutation, Report, Simulation, broken, world::Server};
use crate::{DrainPlan, DrainPolicy, Event, Origin, Plan, Readiness, Rollout};

const SECOND: Duration = Duration::from_secs(1);

impl Simulation {
    /// One thing happens.
    pub(super) fn step(&mut self) -> Result<(), Halt> {
        match self.random.u32(0..100) {
            _ if self.world.maps_lost && self.one_in(2) => self.connect(),
            0..5 => self.upgrade(),
            5..7 => self.undo(),
            7..14 => self.with_server("listens", Self::listen),
            14..16 => self.with_server("begins to accept, or stops", |it, number| {
                let server = it.world.server(number)?;
                server.accepts = !server.accepts;
                Ok(())
            }),
            16..30 => self.connect(),
            30..40 => self.with_server("goes on with its connections", |it, number| {
                it.advance(number);
                Ok(())
            }),
            40..48 => self.with_server("ends a flow", |it, number| {
                let server = it.world.server(number)?;
                server.accepted = server.accepted.saturating_sub(1);
                Ok(())
            }),
            48..52 => self.with_server("dies", Self::die),
            52..54 => self.with_server("closes its listener", Self::deafen),
            54..57 => self.start_anew(),
            57..68 => self.deliver(),
            68..86 => self.with_server("is looked at", Self::look),
            86..93 => self.wait(),
            93..97 => {
                self.note(|| "what failed is tried again".to_owned());
                self.save()?;
                self.finish_effects()
            }
            97..99 => {
                self.disk_full = !self.disk_full && self.one_in(2);
                let full = self.disk_full;
                self.note(|| format!("the disk is full: {full}"));
                Ok(())
            }
            _ => Err(Halt::Crashed),
        }?;
        if self.agent.is_none() && self.one_in(3) {
            self.note(|| "the agent starts".to_owned());
            self.start()?;
        }
        self.check()
    }

    pub(super) fn crash(&mut self) {
        self.note(|| "the agent crashes".to_owned());
        self.world.steered_unwritten = self.is_unsaved();
        self.agent = None;
        self.reports.clear();
        if self.removals {
            self.note(|| "the maps are removed".to_owned());
            self.world.lose_maps();
        }
    }

    /// When the agent has taken all reports, it steers to a live generation if one can serve.
    fn check(&self) -> Result<(), Halt> {
        let Some(agent) = &self.agent else { return Ok(()) };
        if !self.reports.is_empty() || !agent.is_idle() {
            return Ok(());
        }
        self.check_successor()?;
        let targets = agent.service.targets();
        if targets != self.world.steering {
            return broken(format!("the kernel has {:?}, not {targets:?}", self.world.steering));
        }
        self.check_facts(agent)?;
        let generations = &agent.service.generations;
        let could = generations.iter().find(|it| it.can_take_over() && self.lives(it.number));
        match (targets, could) {
            (Some(targets), Some(could)) if !self.lives(targets.primary) => broken(format!(
                "{} is steered to and dead, and {} could serve",
                targets.primary, could.number
            )),
            _ => Ok(()),
        }
    }

    fn upgrade(&mut self) -> Result<(), Halt> {
        let ready = if self.one_in(4) { Readiness::Listen } else { Readiness::Accept };
        let settle = if self.mutation == Some(Mutation::DoesNotSettle) {
            Duration::ZERO
        } else {
            self.settle
        };
        let plan =
            Plan { release: None, ready, ready_timeout: 30 * SECOND, settle, drain: self.drain() };
        let found = self.one_in(6);
        let Some(agent) = &self.agent else { return Ok(()) };
        let number = GenerationNumber(agent.service.last_generation.0 + 1);
        let refused = agent.service.candidate().is_some();
        self.note(|| format!("upgrade to {number}, found: {found}, {plan:?}"));
        if refused {
            return self.feed(Event::Upgrade(plan, Origin::Found));
        }
        self.lenient = ready == Readiness::Listen;
        if !found {
            let (cgroup, log) = Default::default();
            let origin = Origin::Launched { program: None, command: Vec::new(), cgroup, log };
            return self.feed(Event::Upgrade(plan, origin));
        }
        self.feed(Event::Upgrade(plan, Origin::Found))?;
        if self.generation(number).is_none() {
            return Ok(());
        }
        self.appear(number);
        self.look(number)
    }

    fn undo(&mut self) -> Result<(), Halt> {
        let drain = self.drain();
        self.note(|| format!("undo, {drain:?}"));
        // From here on it is the operator who decides, also for one that was replaced before steering ever led to it.
        self.world.kept.clear();
        let previous = self.agent.as_ref().and_then(|it| it.service.previous());
        self.world.served.extend(previous);
        self.feed(Event::Undo(drain))
    }

    fn drain(&mut self) -> DrainPlan {
        let policies = [
            DrainPolicy::Patient { idle: None },
            DrainPolicy::Patient { idle: None },
            DrainPolicy::Patient { idle: Some(SECOND) },
            DrainPolicy::Graceful,
        ];
        DrainPlan {
            policy: policies[self.random.usize(0..policies.len())],
            signal: Signal::TERM,
            queue_timeout: 5 * SECOND,
            timeout: 60 * SECOND,
            stop_timeout: 10 * SECOND,
            keep_old: if self.one_in(3) { 40 * SECOND } else { Duration::ZERO },
        }
    }

    /// A server that somebody started.
    pub(super) fn appear(&mut self, number: GenerationNumber) {
        let server = Server {
            alive: true,
            listens: true,
            accepts: !self.one_in(3),
            started_by_others: true,
            need_not_prove: self.lenient,
            ..Server::default()
        };
        self.world.servers.insert(number, server);
    }

    fn with_server(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Self, GenerationNumber) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        let alive = self.world.servers.iter().filter(|(_, server)| server.alive);
        let alive: Vec<_> = alive.map(|(number, _)| *number).collect();
        let Some(number) = self.random.choice(alive) else { return Ok(()) };
        self.note(|| format!("{number} {what}"));
        act(self, number)
    }

    fn listen(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        let adopted = self.world.adopted.contains(&number);
        let accepts = !self.one_in(3);
        let server = self.world.server(number)?;
        if !adopted && server.signals == 0 && !server.listens {
            (server.listens, server.accepts) = (true, accepts);
            server.listener += 1;
            self.report(Report::Appeared(number));
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), Halt> {
        self.note(|| "a client connects".to_owned());
        let any = self.random.usize(0..16);
        self.world.connect(any)
    }

    pub(super) fn advance(&mut self, number: GenerationNumber) {
        let moved = std::array::from_fn(|_| self.random.u64(0..3));
        self.world.advance(number, moved);
    }

    fn die(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        self.world.die(number);
        self.report(Report::Exited(number));
        Ok(())
    }

    fn deafen(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        self.world.deafen(number);
        self.report(Report::Closed(number));
        Ok(())
    }

    /// Reports come from several sources, and so in any order.
    fn deliver(&mut self) -> Result<(), Halt> {
        if self.reports.is_empty() {
            return Ok(());
        }
        let index = self.random.usize(0..self.reports.len());
        let Some(report) = self.reports.remove(index) else { return Ok(()) };
        self.note(|| format!("the agent is told: {report:?}"));
        self.take(report)
    }

    fn wait(&mut self) -> Result<(), Halt> {
        const TIMES: [u64; 5] = [10, 1_000, 5_000, 20_000, 60_000];
        let time = Duration::from_millis(TIMES[self.random.usize(0..TIMES.len())]);
        self.note(|| format!("{time:?} pass"));
        self.let_pass(time)
    }

    fn let_pass(&mut self, time: Duration) -> Result<(), Halt> {
        self.now = self.now.after(time);
        let deadline = self.agent.as_ref().and_then(|it| it.service.next_deadline());
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            self.feed(Event::Tick)?;
        }
        Ok(())
    }

    /// Nothing fails any more, no candidate listens, no flow ends, and no server ends by itself.
    pub(super) fn end(&mut self) -> Result<(), Halt> {
        self.note(|| "from here on nothing happens but time".to_owned());
        if self.agent.is_none() {
            self.start()?;
        }
        self.disk_full = false;
        for round in 0..100 {
            self.save()?;
            self.finish_effects()?;
            while let Some(report) = self.reports.pop_front() {
                self.take(report)?;
            }
            let numbers: Vec<_> = self.world.servers.keys().copied().collect();
            for number in numbers {
                self.advance(number);
                self.look(number)?;
            }
            self.check()?;
            if self.is_over() {
                return self.check_remains();
            }
            // One that was replaced without a plan has an hour to drain.
            self.let_pass(if round < 60 { 3 * SECOND } else { 100 * SECOND })?;
        }
        broken(format!("it does not end: {:#?}", self.disk))
    }

    fn is_over(&self) -> bool {
        self.disk.rollouts.iter().all(Rollout::is_ended)
            && self.disk.generations.len() == 1
            && self.reports.is_empty()
            && self.agent.as_ref().is_some_and(|it| it.is_idle())
    }

    /// One generation is left, and nothing of any other.
    fn check_remains(&self) -> Result<(), Halt> {
        let is_left = |number: &GenerationNumber| self.disk.generation(*number).is_some();
        if let Some(number) = self.world.mapped.iter().find(|number| !is_left(number)) {
            return broken(format!("the maps still know {number}"));
        }
        let launched = |server: &Server| !server.started_by_others;
        let mut servers = self.world.servers.iter().filter(|(_, it)| it.alive && launched(it));
        match servers.find(|(number, _)| !is_left(number)) {
            Some((number, _)) => broken(format!("{number} still runs")),
            None => Ok(()),
        }
    }
}
