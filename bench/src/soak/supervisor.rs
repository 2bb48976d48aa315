//! A supervisor starts a server anew that died when nobody could take over.

use std::time::Instant;

use agent_api::ServiceView;
use anyhow::{Context as _, Result};

use super::acts::Actor;
use tests::servers;

/// A server that was started behind the agent's back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restart {
    /// Which number it got.
    pub(super) number: u32,
    /// Which one it tells its clients: the agent gives a number that it has begun to use to nobody else.
    pub(super) told: u32,
    /// Since when nobody else served.
    pub(super) since: Instant,
}

impl Actor<'_> {
    /// The service goes on by itself, and can be upgraded as before.
    pub(super) fn restart(&mut self) -> Result<()> {
        let (dead, told) = (self.serving(), self.next());
        self.kill(dead)?;
        let since = self.deaths.last().context("nobody has died")?.stopped;
        let stage = &self.control.world.stage;
        let server = self.role.server.as_ref();
        let started = servers::start(server, &stage.namespace, told)?;
        stage.connect(server.address())?;
        if let Some(death) = self.deaths.last_mut() {
            death.served_again = Some(Instant::now());
        }
        let number =
            self.control.until("what was started anew to be the next generation", |it| {
                Ok(successor(&it.service()?, dead))
            })?;
        self.restarts.push(Restart { number, told, since });
        self.serve_as(number);
        self.upgrade()?;
        // Its processes have ended by now.
        drop(started);
        Ok(())
    }
}

/// Who serves alone, if that is another one.
fn successor(service: &ServiceView, dead: u32) -> Option<u32> {
    let [alone] = service.generations.as_slice() else { return None };
    (alone.takes_new_connections && alone.number.0 != dead).then_some(alone.number.0)
}
