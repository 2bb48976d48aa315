//! Workers of the generation that serves come later, and are recycled.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::acts::Actor;
use super::death::Death;
use tests::process;

impl Actor<'_> {
    /// One more: its listener joins.
    pub(super) fn add_worker(&mut self) -> Result<()> {
        let (master, workers) = self.workers()?;
        let before = self.listeners_of(workers.len(), &BTreeSet::new())?;
        kill(Pid::from_raw(master), Signal::SIGHUP)?;
        self.listeners_of(workers.len() + 1, &before).map(drop)
    }

    /// One dies, and another one comes.
    pub(super) fn recycle_worker(&mut self) -> Result<()> {
        let (_, workers) = self.workers()?;
        let before = self.listeners_of(workers.len(), &BTreeSet::new())?;
        let worker = self.random.choice(&workers).context("there is no worker")?;
        let death = Death::of_process(&self.control.world.stage, *worker, self.control.port)
            .with_context(|| format!("kill worker {worker}"))?;
        self.deaths.push(death);
        self.listeners_of(workers.len(), &before).map(drop)
    }

    /// The process that has children, and these.
    fn workers(&self) -> Result<(i32, Vec<i32>)> {
        self.control.until("a master with workers", |control| {
            let pids = control.service()?.generations.into_iter().flat_map(|it| it.pids);
            let with_children = pids.filter_map(|pid| Some((pid, process::children(pid).ok()?)));
            Ok(with_children.into_iter().find(|(_, workers)| !workers.is_empty()))
        })
    }

    /// The listeners of the generation that serves, when there are so many and not the same as before.
    fn listeners_of(&self, count: usize, before: &BTreeSet<u64>) -> Result<BTreeSet<u64>> {
        self.control.until("the listeners of the workers that there are", |control| {
            let generations = control.service()?.generations;
            let listeners = generations.iter().flat_map(|it| &it.listeners);
            let now: BTreeSet<u64> = listeners.map(|it| it.cookie).collect();
            Ok((now.len() == count && now != *before).then_some(now))
        })
    }
}
