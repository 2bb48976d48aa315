//! Where a connection goes, and why.

use std::{collections::HashSet, net::SocketAddr};

use agent_api::{Explanation, Offer, Problem, ProblemKind};
use agent_rollout::{Generation, ListenerRecord};
use agent_terms::ServiceId;

use super::views::{listener_view, state_of};
use crate::{
    daemon::{
        agent::Agent,
        looks::observe::{self, owner},
    },
    datapath::{Reach, Try, Way},
    host::sock_diag,
};

impl Agent {
    /// What the kernel would do with a connection to `local`, step by step as `steer` does it: by what is in its maps, whatever
    /// was decided. Which generation of it has live listeners the sockets say.
    pub(in crate::daemon) fn explain(
        &self,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> Result<Explanation, Problem> {
        let mut steps = Vec::new();
        if let Some(remote) = remote {
            steps.extend(self.explain_flow(local, remote)?);
        }
        let ours = self.datapath.way(local, remote.map(|it| it.ip()))?;
        let Some(Way { service: id, endpoint, tries }) = ours else {
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
        let Some(service) = self.records.get(&id).map(|record| &record.service) else {
            return Err(unknown(local, id));
        };
        let name = service.name();
        let endpoint = service.endpoints().iter().find(|it| it.number == endpoint);
        steps.push(match endpoint {
            Some(endpoint) => format!("{local} is endpoint {endpoint} of service `{name}`"),
            None => format!("{local} is an endpoint of service `{name}` that it does not know"),
        });
        let live: HashSet<_> = self.listeners_of(id)?.into_iter().map(|it| it.cookie.0).collect();
        // One on a port of its own serves whichever it was moved from.
        let ports = observe::ports(service.endpoints());
        let is_there = |it: &&ListenerRecord| {
            let port = it.public.unwrap_or(it.bound.port());
            live.contains(&it.cookie) && (port == local.port() || !ports.contains(&port))
        };
        let mut offers = Vec::new();
        for Try { generation: number, reach } in tries {
            let generation = service.generation(number);
            let listeners = generation.map(Generation::listeners).unwrap_or_default();
            let listeners: Vec<_> = match reach {
                Reach::Nothing => Vec::new(),
                Reach::Plain | Reach::Places(_) => {
                    listeners.iter().filter(is_there).map(listener_view).collect()
                }
            };
            let phase = generation.map_or("which is gone", |it| state_of(it.phase()).name());
            let role = if offers.is_empty() {
                "steering means"
            } else {
                "if that has no listener left, it falls back to"
            };
            let how = how(reach, listeners.len());
            steps.push(format!("{role} generation {number} ({phase}), {how}"));
            offers.push(Offer { generation: number, listeners });
        }
        if offers.iter().all(|offer| offer.listeners.is_empty()) {
            steps.push("no generation has a listener: the kernel's own lookup decides".to_owned());
        }
        Ok(Explanation {
            schema: agent_api::SCHEMA,
            local,
            service: Some(name.clone()),
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
}

/// The kernel steers what this agent knows nothing of.
fn unknown(local: SocketAddr, id: ServiceId) -> Problem {
    let message = format!(
        "the kernel steers connections to {local} for service number {}, which this agent does not have",
        id.0
    );
    let fix = "restart the agent, which puts right what its maps have (`agent daemon --replace`)";
    Problem::new(ProblemKind::Failed, message).fix(fix)
}

/// How a generation is reached that has so many live listeners.
fn how(reach: Reach, listeners: usize) -> String {
    match (reach, listeners) {
        (Reach::Nothing, _) | (_, 0) => "which has no live listener".to_owned(),
        (Reach::Plain, _) => {
            "which is reached by the kernel's own lookup (Multipath TCP)".to_owned()
        }
        (Reach::Places(_), 1) => "which has a live listener".to_owned(),
        (Reach::Places(_), count) => format!("which has {count} live listeners"),
    }
}
