//! Finds out whose the connections are that were open before their listeners had tags.

use std::collections::{BTreeMap, HashMap, HashSet};

use agent_rollout::Generation;
use agent_terms::{GenerationId, GenerationNumber, ServiceId};

use super::observe;
use crate::{
    daemon::{
        agent::Agent,
        step::{Step, take},
        world_error::WorldError,
    },
    datapath::FlowAddress,
    host::{
        holders,
        process::Pid,
        sock_diag::{self, Connection, Stage},
    },
};

impl Agent {
    /// Tags the connections of a service that have no tag, each for its generation, and says how many are left that nobody
    /// has: those that wait to be accepted, while more than one generation lives.
    ///
    /// # Errors
    ///
    /// When connections or their processes cannot be listed.
    pub(in crate::daemon) fn attribute_flows(
        &mut self,
        id: ServiceId,
    ) -> Result<usize, WorldError> {
        let untagged = self.untagged_flows(id)?;
        if untagged.is_empty() {
            return Ok(0);
        }
        let generations = self.record(id).service.generations().to_vec();
        let all_public = untagged.iter().all(|flow| self.is_public(id, flow));
        let owners = match &generations[..] {
            [only] if all_public => untagged.iter().map(|_| Some(only.number())).collect(),
            _ => self.owners(id, &generations, &untagged)?,
        };
        let mut found: BTreeMap<GenerationNumber, Vec<FlowAddress>> = BTreeMap::new();
        let mut left = 0;
        for (flow, owner) in untagged.iter().zip(owners) {
            match owner {
                Some(number) => found.entry(number).or_default().push(address_of(flow)),
                // One that the server has closed is the kernel's alone, and one that its client has closed is given up. On a port
                // that is not the service's it may be anybody's.
                None => {
                    let given_up = flow.stage() == Stage::Orphaned || flow.is_abandoned();
                    left += usize::from(self.is_public(id, flow) && !given_up);
                }
            }
        }
        for (number, flows) in found {
            let generation = GenerationId { service: id, number };
            take(Step::TakeOverFlows, || Ok(self.datapath.adopt_flows(generation, flows)?))?;
        }
        Ok(left)
    }

    /// The same for connections that a server got before its listeners were taken over, on addresses that nobody looked at.
    ///
    /// # Errors
    ///
    /// As [`Self::attribute_flows`].
    pub(in crate::daemon) fn attribute_newcomers(
        &mut self,
        id: ServiceId,
    ) -> Result<(), WorldError> {
        // Should it fail, each look at the primary tries again.
        self.unattributed.insert(id);
        // A second look finds those that became established while the first one was made.
        self.attribute_flows(id)?;
        self.still_unattributed(id).map(drop)
    }

    fn untagged_flows(&self, id: ServiceId) -> Result<Vec<Connection>, WorldError> {
        let public = observe::ports(self.record(id).service.endpoints());
        let mut flows = self.flows_of(id)?;
        flows.retain(|flow| {
            let is_own = !public.contains(&flow.local.port());
            observe::owner(flow).is_none() && (is_own || self.is_public(id, flow))
        });
        Ok(flows)
    }

    /// Whether a connection came in where the service's clients connect to.
    fn is_public(&self, id: ServiceId, flow: &Connection) -> bool {
        self.record(id).service.endpoints().iter().any(|endpoint| endpoint.contains(flow.local))
    }

    /// By the processes that have them.
    fn owners(
        &self,
        id: ServiceId,
        generations: &[Generation],
        flows: &[Connection],
    ) -> Result<Vec<Option<GenerationNumber>>, WorldError> {
        let listeners = sock_diag::listeners()?;
        let mut inodes: HashSet<_> = flows.iter().filter_map(|flow| flow.inode).collect();
        inodes.extend(listeners.iter().map(|listener| listener.inode));
        let mut members: HashMap<Pid, GenerationNumber> = HashMap::new();
        let holders = holders::holders(&inodes)?.found;
        for generation in generations {
            let number = generation.number();
            let pids = self.pids_of(GenerationId { service: id, number })?;
            members.extend(pids.into_iter().map(|pid| (pid, number)));
            let its = |inode| {
                let cookie = listeners.iter().find(|it| it.inode == inode).map(|it| it.cookie.0);
                generation.listeners().iter().any(|it| Some(it.cookie) == cookie)
            };
            let with_listener = holders.iter().filter(|it| it.inodes.iter().copied().any(its));
            members.extend(with_listener.map(|holder| (holder.pid, number)));
        }
        let owner = |flow: &Connection| {
            let inode = flow.inode?;
            let mut with_flow = holders.iter().filter(|it| it.inodes.contains(&inode));
            with_flow.find_map(|holder| members.get(&holder.pid).copied())
        };
        Ok(flows.iter().map(owner).collect())
    }
}

/// By what the kernel finds it.
pub(in crate::daemon) const fn address_of(flow: &Connection) -> FlowAddress {
    FlowAddress { local: flow.local, remote: flow.remote, interface: flow.interface }
}
