//! Whether a next generation's processes could be followed.

use agent_api::{Problem, ProblemKind};
use agent_ebpf::{MAX_MEMBERS, MAX_MEMBERS_OF_SERVICE};
use agent_terms::ServiceId;

use crate::daemon::agent::Agent;

impl Agent {
    /// Refuses to start what the kernel programs have no room to follow: its binds would not share the port.
    ///
    /// # Errors
    ///
    /// Says who has how many processes.
    pub(in crate::daemon) fn require_room_for_processes(
        &self,
        id: ServiceId,
    ) -> Result<(), Problem> {
        let counts = self.datapath.members_by_service()?;
        let message = match counts.get(&id).copied().unwrap_or_default() {
            its if its >= MAX_MEMBERS_OF_SERVICE => format!(
                "the service has {its} processes, and the agent follows {MAX_MEMBERS_OF_SERVICE} of each service at most"
            ),
            _ if counts.values().sum::<u32>() < MAX_MEMBERS => return Ok(()),
            _ => format!(
                "all services together have as many processes as the agent follows ({MAX_MEMBERS}): {}",
                self.most_of(counts)
            ),
        };
        Err(Problem::new(ProblemKind::Preflight, message)
            .fix("end some; `TasksMax=` of a unit and `pids.max` of a control group keep them few"))
    }

    /// The services that have most, in words.
    fn most_of(&self, counts: impl IntoIterator<Item = (ServiceId, u32)>) -> String {
        const SHOWN: usize = 3;
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let described = counts.iter().take(SHOWN).map(|(id, count)| {
            let record = self.record_if_any(*id);
            let name = record.map_or_else(|| id.0.to_string(), |it| it.service.name().to_string());
            format!("{name} has {count}")
        });
        described.collect::<Vec<_>>().join(", ")
    }
}
