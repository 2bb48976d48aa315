//! How the agent comes back after a crash, as `daemon/start` does.

use std::collections::BTreeSet;

use agent_terms::GenerationNumber;

use super::{
    Halt, Mutation, Report, Simulation, agent::Agent, broken, restart::processes, world::Server,
};
use crate::{Effect, Event, Generation, Origin, Phase, Seen, Service};

impl Simulation {
    /// Starts after a crash: what was decided and not done is done, then it looks who died meanwhile.
    pub(super) fn start(&mut self) -> Result<(), Halt> {
        let mut service = self.disk.clone();
        if self.world.maps_lost {
            self.rebuild(&mut service)?;
        }
        let seen = self.seen(&service);
        let effects = service.resume(&seen, self.now);
        for effect in &effects {
            if matches!(effect, Effect::Steer(targets) if self.world.steering.as_ref() == Some(targets))
            {
                return broken(format!("{effect:?} is executed again"));
            }
        }
        let numbers: Vec<_> = service.generations.iter().map(|it| it.number).collect();
        self.world.disown(|number| numbers.contains(&number));
        self.agent = Some(Agent::coming_back(service, effects));
        if self.mutation != Some(Mutation::ForgetsStrangers) {
            self.report(Report::Stranger);
        }
        self.finish_effects()?;
        for number in numbers {
            self.adopt(number)?;
        }
        Ok(())
    }

    /// As `Agent::build`: what connections may have come meanwhile is written down before anything steers again.
    fn rebuild(&mut self, service: &mut Service) -> Result<(), Halt> {
        self.note(|| "the maps are built anew".to_owned());
        if self.mutation != Some(Mutation::TrustsWhatWasBefore) {
            let applied = service.apply(Event::MapsRebuilt(self.listening(service)), self.now);
            if applied.is_ok_and(|it| it.iter().any(|it| !matches!(it, Effect::Steer(_)))) {
                return broken("the loss of maps is answered by more than steering".to_owned());
            }
        }
        if !self.disk_full {
            self.disk.clone_from(service);
        }
        self.may_crash()?;
        for generation in &service.generations {
            self.world.mapped.insert(generation.number);
            let number = generation.number;
            let hears = self.world.servers.get(&number).is_some_and(Server::hears);
            // Of its listeners those that are known.
            let known = generation.listening() == self.world.listening(number);
            if generation.can_serve() && hears && known {
                self.world.adopted.insert(number);
            }
        }
        self.world.maps_lost = false;
        match service.targets() {
            Some(targets) => self.world.steer(targets, |_| false),
            None => Ok(()),
        }
    }

    fn seen(&self, service: &Service) -> Seen {
        let numbers = || service.generations.iter().map(|it| it.number);
        let alive: BTreeSet<_> = numbers().filter(|number| self.lives(*number)).collect();
        let listening = self.listening(service);
        let mapped = match self.mutation {
            Some(Mutation::LeavesTraces) => BTreeSet::new(),
            _ => self.world.mapped.clone(),
        };
        match self.mutation {
            Some(Mutation::ResumesBlindly) => {
                Seen { steering: None, listening: alive.clone(), alive, mapped }
            }
            _ => Seen { steering: self.world.steering.clone(), listening, alive, mapped },
        }
    }

    /// Those with a listener that is written down.
    fn listening(&self, service: &Service) -> BTreeSet<GenerationNumber> {
        let has_open = |it: &&Generation| {
            let hears = self.world.servers.get(&it.number).is_some_and(Server::hears);
            hears && it.listening() == self.world.listening(it.number)
        };
        service.generations.iter().filter(has_open).map(|it| it.number).collect()
    }

    pub(super) fn adopt(&mut self, number: GenerationNumber) -> Result<(), Halt> {
        let Some(known) = self.generation(number) else { return Ok(()) };
        let (phase, found) = (known.phase.clone(), known.origin == Origin::Found);
        if self.lives(number) && found && known.processes != processes(number) {
            self.feed(Event::ProcessesChanged(number, processes(number)))?;
        }
        match phase {
            Phase::Starting { listens: true, .. } if found && self.lives(number) => {
                self.look(number)
            }
            Phase::Starting { .. } if found => self.feed(Event::Failed(number, String::new())),
            Phase::Dead => Ok(()),
            _ if !self.lives(number) => self.feed(Event::Exited(number)),
            Phase::Primary => {
                self.take(Report::Closed(number))?;
                self.look(number)
            }
            _ => self.take(Report::Closed(number)),
        }
    }
}
