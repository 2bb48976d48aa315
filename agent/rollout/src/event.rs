//! What happens to a service, and what is to be done.

use std::{collections::BTreeSet, time::Duration};

use agent_terms::{Endpoint, GenerationNumber, ProcessIdentity, Signal};

use super::{DrainPlan, ListenerRecord, Origin, Plan, PortHold, RolloutId, Targets};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An upgrade was asked for; `origin` is what it will bring.
    Upgrade(Plan, Origin),
    /// Somebody wants the previous generation back.
    Undo(DrainPlan),
    /// The candidate listens on every endpoint, by these listeners, which are in the kernel maps.
    Covers(GenerationNumber, Listening),
    /// The candidate has accepted a connection on every endpoint.
    Accepted(GenerationNumber),
    /// The candidate does not listen on every endpoint, or does no more; what it lacks.
    Lacks(GenerationNumber, String),
    /// The candidate is not ready, for this reason; it may become so.
    NotYet(GenerationNumber, String),
    /// The candidate cannot become ready.
    Failed(GenerationNumber, String),
    /// Somebody else has started the server anew: these processes, and it listens on every endpoint.
    Restarted(Listening, Vec<ProcessIdentity>),
    /// Somebody has started a generation again that had ended, beside the one that serves.
    CameBack,
    /// No process of the generation is left.
    Exited(GenerationNumber),
    /// The generation lives, but has closed its last listener on some endpoint.
    Deaf(GenerationNumber),
    /// The primary accepts nothing, and more and more connections wait for it.
    Stuck(GenerationNumber),
    /// The generation has a listener on every endpoint again.
    Listens(GenerationNumber),
    /// A generation has other listeners than before, which are in the kernel maps.
    ListenersChanged(GenerationNumber, Listening),
    /// The processes of one that was found are these.
    ProcessesChanged(GenerationNumber, Vec<ProcessIdentity>),
    /// The service has these endpoints now, and the kernel maps know.
    EndpointsChanged(Vec<Endpoint>),
    /// The kernel maps were lost, and are being made anew: for some time nothing steered, and the kernel's own lookup may have led to any
    /// generation that listens: these do.
    MapsRebuilt(BTreeSet<GenerationNumber>),
    /// The kernel queues of a replaced generation were looked at.
    Queues(GenerationNumber, Queues),
    /// The flows of a replaced generation were counted, by asking for the sockets themselves.
    Flows(GenerationNumber, Flows),
    /// One that is parting was looked at, after steering forgot it and while the primary listened. In the order in which a
    /// connection goes (half-open, queued, a flow), so that none that was there can have been missed.
    LastLook(GenerationNumber, Queues, Flows),
    /// The signal was sent.
    Told(GenerationNumber),
    /// Time has passed.
    Tick,
}

impl Event {
    /// Whether somebody asked for it who is told no where it cannot be written down. All others have happened, whether they suit
    /// or not; and whoever wants to go back needs that at once, on a full disk most of all.
    pub const fn can_be_refused(&self) -> bool {
        match self {
            Self::Upgrade(..) => true,
            Self::Undo(..)
            | Self::Covers(..)
            | Self::Accepted(..)
            | Self::Lacks(..)
            | Self::Stuck(..)
            | Self::NotYet(..)
            | Self::Failed(..)
            | Self::Restarted(..)
            | Self::CameBack
            | Self::Exited(..)
            | Self::Deaf(..)
            | Self::Listens(..)
            | Self::ListenersChanged(..)
            | Self::ProcessesChanged(..)
            | Self::EndpointsChanged(..)
            | Self::MapsRebuilt(..)
            | Self::Queues(..)
            | Self::Flows(..)
            | Self::LastLook(..)
            | Self::Told(..)
            | Self::Tick => false,
        }
    }
}

/// The listeners of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// How they hold the public port.
    pub hold: PortHold,
    /// They themselves.
    pub listeners: Vec<ListenerRecord>,
}

/// What the kernel holds for a listener that has not accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// Nothing.
    Empty,
    /// So many connections to accept, and requests that are half-open.
    Waiting(u64),
}

impl Queues {
    /// How many wait.
    pub const fn count(self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Waiting(count) => count,
        }
    }
}

/// The flows of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    /// How many are open.
    pub open: u64,
    /// How many of these wait to be accepted.
    pub queued: u64,
    /// How long every one of them has been idle at least.
    pub idle: Duration,
}

/// What is to be done. After a restart the world is asked which were done: see [`Service::resume`](super::Service::resume).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the candidate's processes.
    Launch(GenerationNumber),
    /// Connect to the candidate, where nobody else can.
    Probe(GenerationNumber),
    /// Give new connections to these.
    Steer(Targets),
    /// Tell the root processes of a generation to end.
    Signal(GenerationNumber, Signal),
    /// End every process of a generation.
    Kill(GenerationNumber),
    /// Remove every trace of a generation that has no process left.
    Forget(GenerationNumber),
}

impl Effect {
    /// Whether it may come before the state that it follows from is on disk: connections wait for another primary (the
    /// kernel has this one now), and steering can be taken back. That steering forgets a standby is not urgent: as long as
    /// nobody can be told to end, it is better fallen back to.
    pub fn cannot_wait(&self, primary: Option<GenerationNumber>) -> bool {
        match self {
            Self::Steer(targets) => primary != Some(targets.primary),
            // It changes nothing that lasts.
            Self::Probe(_) => true,
            Self::Launch(_) | Self::Signal(..) | Self::Kill(_) | Self::Forget(_) => false,
        }
    }
}

/// Why an event that somebody asked for was not accepted. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One change at a time.
    #[error("generation {0} is being made ready by rollout {1}")]
    RolloutUnderWay(GenerationNumber, RolloutId),
    /// There is no generation to go back to.
    #[error("no previous generation is left to go back to")]
    NothingToUndo,
}
