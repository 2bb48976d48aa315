//! How many connections the kernel has moved, and what was made of that.

use std::time::{Duration, Instant};

use agent_terms::GenerationNumber;

/// The moves of one service.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::daemon) struct Moves {
    /// How many people were told of.
    told: u64,
    /// How many there were when tags were last set right; none is known of moves before this agent.
    tagged: u64,
    /// Who got the last ones, and when its listeners are woken.
    untold: Option<(GenerationNumber, Instant)>,
    /// Whether people were told that the server has a program of its own.
    own_program: bool,
}

/// A listener that closes moves one connection after the other: they are told of, and woken for, together.
const BURST: Duration = Duration::from_millis(5);

impl Moves {
    /// So many were moved before anybody could be told.
    pub(super) fn told_until(told: u64) -> Self {
        Self { told, ..Self::default() }
    }

    /// The kernel has moved connections to this generation.
    pub(super) fn note(&mut self, taker: GenerationNumber) {
        let due = self.untold.map_or_else(|| Instant::now() + BURST, |(_, due)| due);
        self.untold = Some((taker, due));
    }

    /// Who got connections that nobody was told of, and when that is due.
    pub(super) const fn untold(&self) -> Option<(GenerationNumber, Instant)> {
        self.untold
    }

    /// So many there are now: how many of them nobody was told of. Once more until nothing is new: the last of them may have come after
    /// we looked.
    pub(super) fn tell(&mut self, moved: u64, taker: GenerationNumber) -> u64 {
        let new = moved.saturating_sub(self.told);
        self.told = moved;
        self.untold = (new > 0).then(|| (taker, Instant::now() + BURST));
        new
    }

    /// As they were, to be told of after this time.
    pub(super) fn tried_again(self, taker: GenerationNumber, after: Duration) -> Self {
        Self { untold: Some((taker, Instant::now() + after)), ..self }
    }

    /// Whether the tags of all these are right.
    pub(super) const fn are_tagged(&self, moved: u64) -> bool {
        self.tagged == moved
    }

    pub(super) const fn note_tagged(&mut self, moved: u64) {
        self.tagged = moved;
    }

    /// The server has a program of its own: whether that is new.
    pub(in crate::daemon) const fn note_own_program(&mut self) -> bool {
        !std::mem::replace(&mut self.own_program, true)
    }
}
