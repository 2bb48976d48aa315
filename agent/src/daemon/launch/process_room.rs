//! Whether a next generation's processes could be followed.

use agent_ebpf::{MAX_MEMBERS, MAX_MEMBERS_OF_SERVICE};
use agent_terms::ServiceId;

use super::error::NotLaunched;
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
    ) -> Result<(), NotLaunched> {
        let counts = self.datapath.members_by_service()?;
        match counts.get(&id).copied().unwrap_or_default() {
            processes if processes >= MAX_MEMBERS_OF_SERVICE => {
                Err(NotLaunched::ServiceCrowded { processes })
            }
            _ if counts.values().sum::<u32>() < MAX_MEMBERS => Ok(()),
            _ => Err(NotLaunched::Crowded { most: self.most_of(counts) }),
        }
    }

    /// The services that have most.
    fn most_of(&self, counts: impl IntoIterator<Item = (ServiceId, u32)>) -> Vec<(String, u32)> {
        const SHOWN: usize = 3;
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let named = |(id, count): &(ServiceId, u32)| {
            let record = self.record_if_any(*id);
            let name = record.map_or_else(|| id.0.to_string(), |it| it.service.name().to_string());
            (name, *count)
        };
        counts.iter().take(SHOWN).map(named).collect()
    }
}
