//! One service from its attach to its detach: its clients, and one event after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_load::{Load, Observation, Report, Running};
use agent_rollout::PortHold;
use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use super::acts::Actor;
use super::cast::Role;
use super::control::Control;
use super::death::Death;
use super::event::Event;
use super::stray::Meant;
use super::world::{Done, World};
use tests::process::Handle;
use tests::servers::{self, Started};

/// A service that is attached, and its clients.
#[derive(Debug)]
pub(super) struct Service<'world> {
    world: &'world World,
    role: &'world Role,
    actor: Actor<'world>,
    load: Arc<Running>,
    meant: Meant,
    strays: Vec<Observation>,
    stray_count: u64,
    number: u64,
    _first: Started,
}

/// What became of a service.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) name: &'static str,
    pub(super) clients: Report,
    pub(super) deaths: Vec<Death>,
    /// Some of the answers of generations that were not to get the connection.
    pub(super) strays: Vec<Observation>,
    pub(super) stray_count: u64,
}

impl<'world> Service<'world> {
    /// Starts the server and the clients, and lets the agent take charge of the port.
    pub(super) fn open(world: &'world World, role: &'world Role, number: u64) -> Result<Self> {
        let stage = &world.stage;
        let server = role.server.as_ref();
        let first = servers::start(server, &stage.namespace, 1)?;
        let load = Arc::new(Load::start(role.plan(&stage.namespace))?);
        stage.agent.attach(server.port())?.success()?;
        let control = Control { world, port: server.port() };
        let actor = Actor::new(control, role, world.settings.random(number))?;
        let (meant, strays) = (Meant::new(), Vec::new());
        Ok(Self { world, role, actor, load, meant, strays, stray_count: 0, number, _first: first })
    }

    /// Does one event after the other until the run is over. What goes wrong is noted.
    pub(super) fn play(&mut self) {
        let mut random = self.world.settings.random(self.number + 100);
        if let Err(error) = self.make_ready() {
            return self.world.give_up(format!("{}: at its begin: {error:#}", self.name()));
        }
        loop {
            self.world.pause(Duration::from_millis(random.u64(LEAST_PAUSE..=MOST_PAUSE)));
            if self.world.is_over() {
                return;
            }
            let event = self.world.deck().draw(self.role.workers);
            // A server that was started anew by others may be one again that cannot share its port.
            if let Err(error) = self.event(event).and_then(|()| self.make_ready()) {
                let (name, events) = (self.name(), self.actor.control.last_events());
                return self.world.give_up(format!("{name}: {event}: {error:#}\n{events}"));
            }
        }
    }

    /// Hands the port back, lets the clients finish, and ends what goes on serving. What goes wrong is noted: what was seen
    /// counts nevertheless.
    pub(super) fn close(mut self, runtime: &Runtime) -> Result<Seen> {
        let handed_back = self.hand_back();
        let Self { world, actor, load, strays, stray_count, role, .. } = self;
        let load = Arc::into_inner(load).context("somebody still looks at the clients")?;
        let clients = runtime.block_on(load.stop());
        let name = role.server.name();
        if let Err(error) =
            handed_back.and_then(|serving| serving.iter().try_for_each(Handle::kill))
        {
            world.fault(format!("{name}: at its end: {error:#}"));
        }
        Ok(Seen { name, clients, deaths: actor.deaths, strays, stray_count })
    }

    /// Detaches, and says which processes go on serving.
    fn hand_back(&mut self) -> Result<Vec<Handle>> {
        let mut service = self.actor.control.until_steady()?;
        // One that came after a server that cannot share its port is on a port of its own, and the next one is not.
        if service.generations.iter().any(|it| it.hold == PortHold::Moved) {
            self.event(Event::Upgrade)?;
            service = self.actor.control.until_steady()?;
        }
        let pids = service.generations.iter().flat_map(|generation| &generation.pids);
        // One of them may end by itself.
        let processes = pids.filter_map(|pid| Handle::open(*pid).ok()).collect();
        self.judge()?;
        self.world.stage.agent.detach(self.role.server.port())?.success()?;
        Ok(processes)
    }

    fn name(&self) -> &'static str {
        self.role.server.name()
    }

    /// For those who want to know how it goes. Nobody must have them any more when the service is closed.
    pub(super) fn clients(&self) -> Arc<Running> {
        Arc::clone(&self.load)
    }

    fn make_ready(&mut self) -> Result<()> {
        while !self.actor.is_ready()? && !self.world.is_over() {
            self.event(Event::Upgrade)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<()> {
        let begun = Instant::now();
        let acted = self.actor.act(event);
        self.judge().context("look at the answers")?;
        let done = Done {
            service: self.name(),
            event,
            from: self.world.seconds(begun),
            to: self.world.seconds(Instant::now()),
            agent_killed: self.world.agent_was_away(begun),
        };
        self.world.notes().events.push(done);
        // After a failure nobody knows which one serves.
        acted?;
        self.role.tidy(self.actor.serving())
    }

    /// Looks at the answers since the last time, all of which are of connections begun before this.
    fn judge(&mut self) -> Result<()> {
        let seen = self.load.take_observations();
        self.meant.learn(self.actor.control.rollouts()?, &self.actor.restarts);
        let outages = self.world.notes().outages.clone();
        let strays = self.meant.strays(&seen, &outages);
        self.stray_count += u64::try_from(strays.len())?;
        let room = MOST_STRAYS.saturating_sub(self.strays.len());
        self.strays.extend(strays.into_iter().take(room));
        Ok(())
    }
}

/// Between two events, in milliseconds.
const LEAST_PAUSE: u64 = 100;
const MOST_PAUSE: u64 = 1_000;
const MOST_STRAYS: usize = 100;
