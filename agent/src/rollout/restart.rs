//! A server that somebody else has started anew.

use super::{
    DrainPlan, Effect, Event, Generation, Kind, Origin, Phase, PortHold, Service, Status, Timestamp,
};
use crate::service::GenerationNumber;

impl Service {
    /// Whether a server that somebody else started may become the next generation by itself: nobody serves, and nobody is on
    /// the way to.
    pub fn is_vacant(&self) -> bool {
        let serves = |it: &Generation| it.phase == Phase::Primary && !it.deaf;
        self.candidate().is_none() && !self.generations.iter().any(serves)
    }

    /// The number of the next generation.
    pub fn next_number(&self) -> GenerationNumber {
        GenerationNumber(self.last_generation.0 + 1)
    }

    /// Connections go there already, by the kernel's own lookup; this makes it official. One that lives and is deaf drains
    /// by the default plan: nobody said another one.
    pub(super) fn succeed(&mut self, hold: PortHold, now: Timestamp) -> Vec<Effect> {
        if !self.is_vacant() {
            return Vec::new();
        }
        let number = self.next_number();
        let from = self.primary().map_or(self.last_generation, |primary| primary.number);
        self.last_generation = number;
        let drain = DrainPlan::default();
        self.generations.push(Generation {
            number,
            phase: Phase::Starting { ready_by: now, obstacle: None, drain },
            origin: Origin::Found,
            hold,
            since: now,
            processes: Vec::new(),
            listeners: Vec::new(),
            former_ports: Default::default(),
            flows: 0,
            deaf: false,
            told: false,
        });
        self.record(Kind::Restart, from, number, Status::MakingReady, now);
        self.apply(Event::Ready(number, hold), now).unwrap_or_default()
    }
}
