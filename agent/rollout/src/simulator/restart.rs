//! Somebody else starts the server anew: it is nobody's until the agent takes it for the next generation.

use std::time::Duration;

use agent_terms::{GenerationNumber, Pid, ProcessIdentity, StartTime};

use super::{Halt, Mutation, Report, Simulation, agent::Agent, broken, world::Server};
use crate::{DrainPlan, Event, Origin, Plan, Readiness};

impl Simulation {
    /// A server of the same program listens on the port. There may be one already: it then takes the place of that.
    pub(super) fn start_anew(&mut self) -> Result<(), Halt> {
        self.note(|| "somebody starts the server anew".to_owned());
        let server = Server {
            alive: true,
            listens: true,
            accepts: !self.one_in(3),
            started_by_others: true,
            started_anew: true,
            came_back: self.one_in(3),
            ..Server::default()
        };
        self.world.stranger = Some(server);
        self.report(Report::Stranger);
        Ok(())
    }

    /// As `Agent::look_for_successor`: what cannot be done is tried again.
    pub(super) fn look_for_successor(&mut self) -> Result<(), Halt> {
        let Some(agent) = &self.agent else { return Ok(()) };
        let (wanted, number) = (agent.service.may_take_in(), agent.service.next_number());
        let greedy = self.mutation == Some(Mutation::TakesStrangersWhereOneServes);
        let came_back = agent.service.is_served() && self.world.has_come_back();
        if !self.world.has_stranger() || !(wanted || greedy || came_back) {
            return Ok(());
        }
        if self.fails() {
            self.report(Report::Stranger);
            return Ok(());
        }
        self.may_crash()?;
        self.world.take_in(number);
        self.may_crash()?;
        match wanted {
            true => {
                let listening = self.world.listening(number);
                self.feed(Event::Restarted(listening, processes(number)))
            }
            false if came_back => {
                self.feed(Event::CameBack)?;
                self.feed(Event::ProcessesChanged(number, processes(number)))
            }
            false => self.take_unasked(number),
        }
    }

    /// What an agent does that is wrong.
    fn take_unasked(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        let plan = Plan {
            release: None,
            ready: Readiness::Listen,
            ready_timeout: Duration::ZERO,
            settle: Duration::ZERO,
            drain: DrainPlan::default(),
        };
        self.feed(Event::Upgrade(plan, Origin::Found))?;
        let listening = self.world.listening(number);
        self.feed(Event::Covers(number, listening))
    }

    /// What is written down of one that is steered to is what it has.
    pub(super) fn check_facts(&self, agent: &Agent) -> Result<(), Halt> {
        for generation in agent.service.generations.iter().filter(|it| it.can_serve()) {
            let number = generation.number;
            if self.world.reachable(number)
                && generation.listening() != self.world.listening(number)
            {
                return broken(format!("{number} has another listener than is written down"));
            }
            let anew = self.world.servers.get(&number).is_some_and(|it| it.started_anew);
            if anew && self.lives(number) && generation.processes != processes(number) {
                return broken(format!("{number} has other processes than are written down"));
            }
        }
        Ok(())
    }

    /// Where nobody serves, who was started anew is the primary as soon as all is taken that was reported.
    pub(super) fn check_successor(&self) -> Result<(), Halt> {
        let vacant = self.agent.as_ref().is_some_and(|it| !it.service.is_served());
        match vacant && self.world.has_stranger() {
            true => broken("nobody serves, and a server that was started anew is left out".into()),
            false => Ok(()),
        }
    }
}

/// Those of a server that somebody has started.
pub(super) fn processes(number: GenerationNumber) -> Vec<ProcessIdentity> {
    let pid = number.0.try_into().ok().and_then(Pid::new);
    let birth = |pid| ProcessIdentity { pid, start_time: StartTime(number.0.into()) };
    pid.map(birth).into_iter().collect()
}
