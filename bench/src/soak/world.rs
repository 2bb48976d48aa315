//! What all threads of a run share.

use std::fmt;
use std::ops::Range;
use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::death::Death;
use super::event::{Deck, Event};
use super::settings::Settings;
use crate::interrupt::Interrupt;
use tests::stage::Stage;
use tests::wait;

/// The agent, the clock, and what was noted down.
#[derive(Debug)]
pub(super) struct World {
    pub(super) stage: Stage,
    pub(super) settings: Settings,
    /// From which all times are counted.
    pub(super) begun: Instant,
    /// When everything was there, so that the run could begin.
    ready: OnceLock<Instant>,
    interrupt: Interrupt,
    deck: Mutex<Deck>,
    /// Shared by those who need an agent that lives, and held by who kills it.
    agent: RwLock<()>,
    notes: Mutex<Notes>,
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) events: Vec<Done>,
    pub(super) outages: Vec<Outage>,
    /// Upgrades that failed because the agent was killed when it was about to launch the new generation.
    pub(super) cut_launches: u64,
    /// Old generations that were killed while there was no agent, which then took their drain for completed.
    pub(super) missed_deaths: u64,
    /// Commands that were given for the hostile server, and how many of them succeeded.
    pub(super) asked_of_hostile: u64,
    pub(super) done_by_hostile: u64,
    /// What was not as it has to be. One is enough for the run to fail.
    pub(super) faults: Vec<String>,
    over: bool,
}

/// Something that was done to a service.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Done {
    pub(super) service: &'static str,
    pub(super) event: Event,
    /// Seconds from the begin of the run to the begin and to the end.
    pub(super) from: f64,
    pub(super) to: f64,
    /// Whether the agent was killed meanwhile.
    pub(super) agent_killed: bool,
}

/// A time without an agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) killed: Instant,
    /// When the next agent answered.
    pub(super) back: Option<Instant>,
}

impl World {
    pub(super) fn new(stage: Stage, settings: Settings, interrupt: Interrupt) -> Self {
        let deck = Mutex::new(Deck::shuffled(settings.seed));
        let notes = Mutex::default();
        let (begun, ready) = (Instant::now(), OnceLock::new());
        let agent = RwLock::default();
        Self { stage, settings, begun, ready, interrupt, deck, agent, notes }
    }

    pub(super) fn deck(&self) -> MutexGuard<'_, Deck> {
        self.deck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held the agent is not killed.
    pub(super) fn need_agent(&self) -> RwLockReadGuard<'_, ()> {
        self.agent.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody needs the agent. While this is held nobody does.
    pub(super) fn spare_agent(&self) -> RwLockWriteGuard<'_, ()> {
        self.agent.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds from the begin of the run.
    pub(super) fn seconds(&self, at: Instant) -> f64 {
        at.duration_since(self.begun).as_secs_f64()
    }

    /// Lets the time begin that was asked for: on a busy machine the servers take a while to start.
    pub(super) fn start_clock(&self) {
        self.ready.get_or_init(Instant::now);
    }

    /// How much of the time that was asked for has passed.
    pub(super) fn elapsed(&self) -> Duration {
        self.ready.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Whether nothing new is to be begun.
    pub(super) fn is_over(&self) -> bool {
        self.elapsed() >= self.settings.duration
            || self.interrupt.check().is_err()
            || self.notes().over
    }

    /// Whether somebody wants the run to end before its time.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.interrupt.check()
    }

    /// Ends the run before its time: what went wrong makes going on useless.
    pub(super) fn give_up(&self, fault: impl fmt::Display) {
        self.fault(fault);
        self.notes().over = true;
    }

    /// Notes what was not as it has to be.
    pub(super) fn fault(&self, fault: impl fmt::Display) {
        let fault = format!("{:.1} s: {fault}", self.seconds(Instant::now()));
        eprintln!("soak: {fault}");
        self.notes().faults.push(fault);
    }

    /// Lets a time pass, or less if the run ends.
    pub(super) fn pause(&self, duration: Duration) {
        let until = Instant::now() + duration;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            wait::sleep(left.min(BEAT));
        }
    }

    /// Whether the agent was killed in that time.
    pub(super) fn agent_was_killed(&self, during: &Range<Instant>) -> bool {
        self.notes().outages.iter().any(|outage| during.contains(&outage.killed))
    }

    /// Whether the agent was not there at a death, or was killed before it can have done anything about it.
    pub(super) fn agent_missed(&self, death: &Death) -> bool {
        let missed = |outage: &Outage| {
            outage.killed <= death.gone + NOTICED
                && outage.back.is_none_or(|back| back >= death.stopped)
        };
        self.notes().outages.iter().any(missed)
    }

    /// Whether there was a moment without an agent since then.
    pub(super) fn agent_was_away(&self, since: Instant) -> bool {
        self.notes().outages.iter().any(|outage| outage.back.is_none_or(|back| back >= since))
    }
}

/// More than the agent takes to notice a death on a busy machine.
const NOTICED: Duration = Duration::from_millis(500);
const BEAT: Duration = Duration::from_millis(50);
