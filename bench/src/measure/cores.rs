//! Which processor cores the server and the clients run on.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use, divided: clients that take the server's time would measure themselves.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    all: CpuSet,
    server: CpuSet,
    clients: CpuSet,
}

impl Cores {
    /// One for the server and one for the clients; the same one where there is no other.
    pub(crate) fn find() -> Result<Self> {
        let all = sched_getaffinity(None).context("ask which cores may be used")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
        let server = usable.next().context("no core may be used")?;
        let clients = usable.next().unwrap_or(server);
        Ok(Self { all, server: only(server), clients: only(clients) })
    }

    /// How many may be used.
    pub(crate) fn count(&self) -> u32 {
        self.all.count()
    }

    /// Does something on the server's core. What it starts stays there.
    pub(crate) fn on_servers<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.within(&self.server, act)
    }

    /// Does something on the clients' core. What it starts stays there.
    pub(crate) fn on_clients<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.within(&self.clients, act)
    }

    fn within<T>(&self, cores: &CpuSet, act: impl FnOnce() -> Result<T>) -> Result<T> {
        sched_setaffinity(None, cores).context("move to another core")?;
        let done = act();
        sched_setaffinity(None, &self.all).context("move back to all cores")?;
        done
    }
}

fn only(core: usize) -> CpuSet {
    let mut cores = CpuSet::new();
    cores.set(core);
    cores
}
