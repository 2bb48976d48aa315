//! What the kernel reports, typed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use agent_ebpf::{
    event::{
        BIND_MOVED, CONNECTIONS_MOVED, FALLBACK_USED, GENERATION_EMPTY, LISTENER_APPEARED,
        LISTENER_GONE, LOST, NOTICED, STRANGER_LISTENS,
    },
    flow::GenerationKey,
};
use agent_terms::{GenerationId, GenerationNumber, ServiceId};
use aya::maps::{Array, MapData, RingBuf};

use super::{DatapathError, error::Named as _};

/// A report of a kernel program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process of a generation called `listen()`. The socket may not be found by a dump for some microseconds.
    ListenerAppeared(GenerationId),
    /// A listener was closed.
    ListenerGone(GenerationId),
    /// The last open flow ended.
    GenerationEmpty(GenerationId),
    /// New connections go elsewhere, because this generation has no listener left.
    FallbackUsed(GenerationId),
    /// A bind was moved to a free port, because another user holds the public one.
    BindMoved(GenerationId),
    /// This generation was given connections that another listener had not accepted when it was closed.
    ConnectionsMoved(GenerationId),
    /// A process that is no generation's called `listen()` on a port of this service; of one that is not known where only some
    /// addresses of the port are endpoints. The socket may not be found by a dump for some microseconds.
    StrangerListens(ServiceId),
}

/// The stream of reports. Readable when there are some.
pub struct Events {
    ring: RingBuf<MapData>,
    lost: Array<MapData, u64>,
}

impl Events {
    pub(super) const fn new(ring: RingBuf<MapData>, lost: Array<MapData, u64>) -> Self {
        Self { ring, lost }
    }

    /// The next report, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        loop {
            let record = self.ring.next()?;
            if let Some(event) = parse(&record) {
                return Some(event);
            }
            tracing::warn!(
                bytes = record.len(),
                "the kernel sent a report that this agent does not know"
            );
        }
    }

    /// How many reports found the ring full since the last call, whichever agent made it. To be asked after the ring was
    /// emptied: one that is lost later finds a ring that is full again, which wakes the agent again.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn newly_lost(&mut self) -> Result<u64, DatapathError> {
        const MAP: &str = "LOST_REPORTS";
        let lost = self.lost.get(&LOST, 0).named("read", MAP)?;
        let noticed = self.lost.get(&NOTICED, 0).named("read", MAP)?;
        if lost != noticed {
            self.lost.set(NOTICED, lost, 0).named("write", MAP)?;
        }
        Ok(lost.saturating_sub(noticed))
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_fd().as_raw_fd()
    }
}

fn parse(record: &[u8]) -> Option<Event> {
    let (words, _) = record.as_chunks::<4>();
    let &[kind, _pid, service, generation, ..] = words else { return None };
    let key = GenerationKey {
        service: u32::from_ne_bytes(service),
        generation: u32::from_ne_bytes(generation),
    };
    let generation =
        GenerationId { service: ServiceId(key.service), number: GenerationNumber(key.generation) };
    match u32::from_ne_bytes(kind) {
        LISTENER_APPEARED => Some(Event::ListenerAppeared(generation)),
        LISTENER_GONE => Some(Event::ListenerGone(generation)),
        GENERATION_EMPTY => Some(Event::GenerationEmpty(generation)),
        FALLBACK_USED => Some(Event::FallbackUsed(generation)),
        BIND_MOVED => Some(Event::BindMoved(generation)),
        CONNECTIONS_MOVED => Some(Event::ConnectionsMoved(generation)),
        STRANGER_LISTENS => Some(Event::StrangerListens(generation.service)),
        _ => None,
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::fuzzing::{
        Verdict, fuzz,
        mutate::{Bytes, mutated},
    };

    /// Kind, process, service, generation and cookie, as the programs write them.
    fn record(kind: u32) -> Vec<u8> {
        let words = [kind, 4_194_304, 1, u32::from(kind == LISTENER_APPEARED) + 1, 7, 0];
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    fn judge(record: &Bytes) -> Verdict {
        let record = record.as_ref();
        let Some(event) = parse(record) else { return Verdict::Refused };
        let word = |at: usize| u32::from_ne_bytes(*record[at..].first_chunk().unwrap());
        let (kind, service) = match event {
            Event::ListenerAppeared(it) => (LISTENER_APPEARED, it.service),
            Event::ListenerGone(it) => (LISTENER_GONE, it.service),
            Event::GenerationEmpty(it) => (GENERATION_EMPTY, it.service),
            Event::FallbackUsed(it) => (FALLBACK_USED, it.service),
            Event::BindMoved(it) => (BIND_MOVED, it.service),
            Event::ConnectionsMoved(it) => (CONNECTIONS_MOVED, it.service),
            Event::StrangerListens(service) => (STRANGER_LISTENS, service),
        };
        assert_eq!((kind, service.0), (word(0), word(8)));
        Verdict::Taken
    }

    #[test]
    fn no_record_is_taken_for_another_one() {
        let records = (0..=STRANGER_LISTENS + 1).map(record).collect();
        fuzz("ring_buffer", &mutated(records, &[]), judge);
    }
}
