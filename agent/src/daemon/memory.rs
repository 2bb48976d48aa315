//! What is known of each generation besides what is written down. It is lost with the agent, and found out again where it matters.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use agent_rollout::Flows;
use agent_terms::{GenerationId, ServiceId};

use super::{
    launch::pending_report::PendingReport,
    looks::{backlog::Backlog, probing::Probing},
};
use crate::host::{launch::LaunchSpec, process::ProcessIdentity, sock_diag::SocketCookie};

/// Of one generation.
#[derive(Default)]
pub(super) struct Memory {
    /// What is to be launched for it. Never written down: a launch is not repeated.
    pub(super) to_launch: Option<LaunchSpec>,
    /// What was launched and is not executed yet.
    pub(super) launching: Option<PendingReport>,
    /// When to look at it next.
    pub(super) next_look: Option<Instant>,
    /// When to count its processes again, which come and go.
    pub(super) next_count: Option<Instant>,
    /// Who of it was told to end.
    pub(super) told: HashSet<ProcessIdentity>,
    /// The half-open requests that it had when it was replaced.
    pub(super) half_open: Option<HashSet<SocketCookie>>,
    /// What was last seen of its flows.
    pub(super) flows: Option<Flows>,
    /// How it was asked to accept.
    pub(super) probing: Option<Probing>,
    /// Whether people were told of a listener that cannot be steered to.
    pub(super) has_unfit_listener: bool,
    /// What waits for it while it has to prove itself.
    pub(super) backlog: Option<Backlog>,
}

/// Of all generations.
#[derive(Default)]
pub(super) struct Memories {
    by_generation: HashMap<GenerationId, Memory>,
}

impl Memories {
    /// Nothing of one of which nothing is known.
    pub(super) fn of(&self, generation: GenerationId) -> Option<&Memory> {
        self.by_generation.get(&generation)
    }

    /// For what becomes known of it.
    pub(super) fn of_mut(&mut self, generation: GenerationId) -> &mut Memory {
        self.by_generation.entry(generation).or_default()
    }

    /// Of one of which anything is known.
    pub(super) fn known_mut(&mut self, generation: GenerationId) -> Option<&mut Memory> {
        self.by_generation.get_mut(&generation)
    }

    /// Those with a time of this kind, and that time.
    pub(super) fn times(
        &self,
        kind: impl Fn(&Memory) -> Option<Instant>,
    ) -> impl Iterator<Item = (GenerationId, Instant)> {
        let known = self.by_generation.iter();
        known.filter_map(move |(generation, it)| kind(it).map(|at| (*generation, at)))
    }

    /// Those whose time of this kind has come.
    pub(super) fn due(
        &self,
        now: Instant,
        kind: impl Fn(&Memory) -> Option<Instant>,
    ) -> Vec<GenerationId> {
        self.times(kind).filter(|(_, at)| *at <= now).map(|(generation, _)| generation).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (GenerationId, &Memory)> {
        self.by_generation.iter().map(|(generation, it)| (*generation, it))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (GenerationId, &mut Memory)> {
        self.by_generation.iter_mut().map(|(generation, it)| (*generation, it))
    }

    pub(super) fn forget(&mut self, generation: GenerationId) {
        self.by_generation.remove(&generation);
    }

    /// Of a service that is detached.
    pub(super) fn forget_service(&mut self, id: ServiceId) {
        self.by_generation.retain(|generation, _| generation.service != id);
    }
}
