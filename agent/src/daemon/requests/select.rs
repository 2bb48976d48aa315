//! Which service people mean.

use agent_api::{Problem, ProblemKind};
use agent_rollout::Service;
use agent_terms::ServiceId;

use crate::daemon::agent::Agent;

impl Agent {
    /// The service with this name, or the one that has an endpoint on this port.
    pub(in crate::daemon) fn select(&self, selector: &str) -> Result<ServiceId, Problem> {
        let port: Option<u16> = selector.parse().ok();
        let matches = |service: &Service| match port {
            Some(port) => service.endpoints().iter().any(|endpoint| endpoint.port == port),
            None => service.name().as_str() == selector,
        };
        let mut found =
            self.records.iter().filter(|(_, record)| matches(&record.service)).map(|(id, _)| *id);
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(Problem::new(
                ProblemKind::Usage,
                format!("several services have port {selector}"),
            )
            .fix("select one by its name: `agent status` lists them")),
            (None, _) => Err(self.not_found(selector, port)),
        }
    }

    /// That one, or all where none is meant, by their names.
    pub(in crate::daemon) fn one_or_all(
        &self,
        selector: Option<String>,
    ) -> Result<Vec<ServiceId>, Problem> {
        match selector {
            Some(selector) => Ok(vec![self.select(&selector)?]),
            None => {
                let mut all: Vec<_> = self.records.keys().copied().collect();
                all.sort_by_key(|id| self.record(*id).service.name().clone());
                Ok(all)
            }
        }
    }

    fn not_found(&self, selector: &str, port: Option<u16>) -> Problem {
        let message = match port {
            Some(port) => format!("no service is attached to port {port}"),
            None => format!("there is no service `{selector}`"),
        };
        let names: Vec<_> =
            self.records.values().map(|record| record.service.name().to_string()).collect();
        let fix = match (port, names.is_empty()) {
            (Some(port), true) => format!("attach it: `agent attach --port {port}`"),
            (_, false) => format!("attached are: {}", names.join(", ")),
            (None, true) => "nothing is attached; see `agent attach --help`".to_owned(),
        };
        Problem::new(ProblemKind::NotFound, message).fix(fix)
    }
}
