//! What the programs have counted.

use agent_ebpf::{flow::FlowCounts, steering::SteerCounts};
use agent_terms::{GenerationId, ServiceId};

use super::{Datapath, DatapathError, error::Named as _, programs::TRACK_FLOWS};

impl Datapath {
    /// How many flows a generation got, and how many of them ended.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn flow_counts(&self, generation: GenerationId) -> Result<FlowCounts, DatapathError> {
        Ok(self.flows.get(generation.key())?.unwrap_or_default())
    }

    /// How many changes of sockets' states our programs have not seen, because the kernel does not run a tracing program on a
    /// core where it runs already (`__bpf_trace_run`): the network may interrupt it. The counts are off by as much at most.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn missed_changes(&self) -> Result<u64, DatapathError> {
        self.kernel.missed_runs(TRACK_FLOWS)
    }

    /// What became of the lookups for a service and of its unaccepted connections, all CPUs together.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn steer_counts(&self, service: ServiceId) -> Result<SteerCounts, DatapathError> {
        let per_cpu = self.steered.get(&service.0, 0).named("read", "STEERED")?;
        Ok(per_cpu.iter().fold(SteerCounts::default(), |sum, cpu| SteerCounts {
            steered: sum.steered + cpu.steered,
            plain: sum.plain + cpu.plain,
            fallback: sum.fallback + cpu.fallback,
            unreached: sum.unreached + cpu.unreached,
            reported_at: sum.reported_at.max(cpu.reported_at),
            moved: sum.moved + cpu.moved,
            stranded: sum.stranded + cpu.stranded,
            move_reported_at: sum.move_reported_at.max(cpu.move_reported_at),
        }))
    }
}
