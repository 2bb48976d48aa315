//! Where a connection goes, and why.

use std::{collections::HashSet, net::SocketAddr};

use agent_api::{Explanation, Offer, Problem};
use agent_rollout::{Generation, PortHold};
use agent_terms::{Endpoint, ServiceId};

use super::views::{listener_view, state_of};
use crate::{
    daemon::{agent::Agent, looks::observe::owner},
    host::sock_diag,
};

impl Agent {
    /// What the kernel would do with a connection to `local`, step by step as `steer` does it.
    pub(in crate::daemon) fn explain(
        &self,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> Result<Explanation, Problem> {
        let mut steps = Vec::new();
        if let Some(remote) = remote {
            steps.extend(self.explain_flow(local, remote)?);
        }
        let Some((id, endpoint)) = self.endpoint_of(local) else {
            steps.push(format!(
                "{local} is no endpoint of this agent: the kernel's own lookup decides"
            ));
            return Ok(Explanation {
                schema: agent_api::SCHEMA,
                local,
                service: None,
                offers: Vec::new(),
                steps,
            });
        };
        let service = &self.record(id).service;
        steps.push(format!("{local} is endpoint {endpoint} of service `{}`", service.name()));
        let live: HashSet<_> = self.listeners_of(id)?.into_iter().map(|it| it.cookie.0).collect();
        let targets = service.targets().into_iter();
        let order =
            targets.flat_map(|targets| std::iter::once(targets.primary).chain(targets.standbys));
        let mut offers = Vec::new();
        for number in order {
            let Some(generation) = service.generation(number) else { continue };
            let listeners: Vec<_> = generation
                .listeners()
                .iter()
                .filter(|it| live.contains(&it.cookie))
                .map(listener_view)
                .collect();
            steps.push(explain_offer(generation, listeners.len(), offers.is_empty()));
            offers.push(Offer { generation: number, listeners });
        }
        if offers.iter().all(|offer| offer.listeners.is_empty()) {
            steps.push("no generation has a listener: the kernel's own lookup decides".to_owned());
        }
        Ok(Explanation {
            schema: agent_api::SCHEMA,
            local,
            service: Some(service.name().clone()),
            offers,
            steps,
        })
    }

    fn explain_flow(&self, local: SocketAddr, remote: SocketAddr) -> Result<Vec<String>, Problem> {
        let tags = Some(self.datapath.tags());
        let flows = sock_diag::connections(&[local.port()], tags)?;
        let flow = flows.iter().find(|flow| flow.remote == remote && flow.local == local);
        Ok(flow
            .into_iter()
            .map(|flow| match owner(flow) {
                Some(key) => format!(
                    "the flow from {remote} is open and pinned to generation {}",
                    key.generation
                ),
                None => {
                    format!("the flow from {remote} is open and was not opened through this agent")
                }
            })
            .collect())
    }

    /// As the kernel: the exact address first, then any.
    fn endpoint_of(&self, local: SocketAddr) -> Option<(ServiceId, &Endpoint)> {
        let endpoints = || {
            self.records
                .iter()
                .flat_map(|(id, record)| record.service.endpoints().iter().map(move |it| (*id, it)))
        };
        let is_any = |endpoint: &Endpoint| {
            endpoint.address.keys(endpoint.port).iter().all(|key| *key == key.any())
        };
        let exact = endpoints().find(|(_, endpoint)| endpoint.contains(local) && !is_any(endpoint));
        exact.or_else(|| endpoints().find(|(_, endpoint)| endpoint.contains(local)))
    }
}

fn explain_offer(generation: &Generation, listeners: usize, first: bool) -> String {
    let role =
        if first { "steering means" } else { "if that has no listener left, it falls back to" };
    let how = match (generation.hold(), listeners) {
        (_, 0) => "which has no live listener".to_owned(),
        (PortHold::Plain, _) => {
            "which is reached by the kernel's own lookup (Multipath TCP)".to_owned()
        }
        (PortHold::Shared | PortHold::Moved | PortHold::Unbound, count) => {
            format!("which has {count} live listener(s)")
        }
    };
    format!(
        "{role} generation {} ({}), {how}",
        generation.number(),
        state_of(generation.phase()).name()
    )
}
