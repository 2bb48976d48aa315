//! A hostile server beside all others: what it does, and what is asked of it, has to be nothing to them.

use anyhow::Result;

use super::world::World;
use tests::agent;
use tests::servers::{self, Hostile, Server as _, Started};

/// Its service, of which nobody expects that it serves.
#[derive(Debug)]
pub(super) struct Intruder<'world> {
    world: &'world World,
    server: Hostile,
    generation: u32,
    /// One that was started here, and not by the agent.
    started: Started,
}

impl<'world> Intruder<'world> {
    /// Starts the server, and lets the agent take charge of its port, if it will.
    pub(super) fn open(world: &'world World, server: Hostile) -> Result<Self> {
        let started = servers::start(&server, &world.stage.namespace, FIRST)?;
        let intruder = Self { world, server, generation: FIRST, started };
        intruder.attach()?;
        Ok(intruder)
    }

    /// Upgrades, undoes and detaches until the run is over. How often that succeeds is noted.
    pub(super) fn play(&mut self) {
        let mut random = self.world.settings.random(INTRUDER);
        for turn in 0_u32.. {
            self.world.pause(std::time::Duration::from_millis(random.u64(0..=LONGEST_PAUSE)));
            if self.world.is_over() {
                return;
            }
            if let Err(error) = self.turn(turn) {
                return self.world.give_up(format!("the hostile server: {error:#}"));
            }
        }
    }

    /// Ends all that is left of it.
    pub(super) fn close(self) -> Result<()> {
        let Self { world, server, started, .. } = self;
        // It need not be attached just then.
        world.stage.agent.detach(server.port())?;
        drop(started);
        world.stage.namespace.clear_of(Hostile::USER)
    }

    fn turn(&mut self, turn: u32) -> Result<()> {
        let port = self.server.port();
        self.generation += 1;
        let words = match turn % 4 {
            0 | 2 => agent::upgrade(port, &OPTIONS, &self.server.command(self.generation)?),
            1 => ["undo".to_owned(), port.to_string()].to_vec(),
            _ => ["detach".to_owned(), port.to_string()].to_vec(),
        };
        let ended = self.world.stage.agent.run(&words)?;
        let mut notes = self.world.notes();
        notes.asked_of_hostile += 1;
        notes.done_by_hostile += u64::from(ended.code == Some(0));
        drop(notes);
        if turn % 4 == 3 {
            self.attach_again()?;
        }
        Ok(())
    }

    fn attach_again(&mut self) -> Result<()> {
        if !self.world.stage.namespace.listens(self.server.port())? {
            self.started = servers::start(&self.server, &self.world.stage.namespace, FIRST)?;
        }
        self.attach()
    }

    fn attach(&self) -> Result<()> {
        // It would start an agent that nobody keeps.
        let _needed = self.world.need_agent();
        self.world.stage.agent.attach(self.server.port()).map(drop)
    }
}

const FIRST: u32 = 1;
const OPTIONS: [&str; 6] =
    ["--timeout", "2s", "--drain-timeout", "100ms", "--stop-timeout", "100ms"];
/// Not the number of any service.
const INTRUDER: u64 = 998;
/// In milliseconds.
const LONGEST_PAUSE: u64 = 1_000;
