//! Tells the agent what happened.

use agent_ebpf::{
    event::{Event, LOST},
    flow::GenerationKey,
};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;

use crate::{
    maps::{EVENTS, LOST_REPORTS},
    track_flows::add,
};

/// Sends an event about a socket (or 0) that the current process caused.
///
/// A full buffer loses the event, which is counted: the agent then looks at everything that an event would have told of. It
/// compares with the sockets themselves before it acts, so that a lost event costs time but never a connection.
#[inline(always)]
pub(crate) fn report(kind: u32, generation: GenerationKey, cookie: u64) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(mut record) = EVENTS.reserve::<Event>(0) {
        record.write(Event { kind, pid, generation, cookie });
        record.submit(0);
    } else if let Some(lost) = LOST_REPORTS.get_ptr_mut(LOST) {
        add(lost);
    }
}
