//! Tells the agent what happened.

use agent_ebpf::{
    event::{Event, LOST},
    flow::GenerationKey,
};

use crate::{
    maps::{EVENTS, LOST_REPORTS},
    track_flows::add,
};

/// Sends an event about a socket (or 0).
///
/// Not who caused it: programs that look up or choose a socket may ask for the current process since Linux 6.10 only, and it is
/// nobody in particular there.
///
/// A full buffer loses the event, which is counted: the agent then looks at everything that an event would have told of. It
/// compares with the sockets themselves before it acts, so that a lost event costs time but never a connection.
#[inline(always)]
pub(crate) fn report(kind: u32, generation: GenerationKey, cookie: u64) {
    if let Some(mut record) = EVENTS.reserve::<Event>(0) {
        record.write(Event { kind, unused: 0, generation, cookie });
        record.submit(0);
    } else if let Some(lost) = LOST_REPORTS.get_ptr_mut(LOST) {
        add(lost);
    }
}
