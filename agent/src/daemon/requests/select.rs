//! Which service people mean.

use agent_rollout::Service;
use agent_terms::ServiceId;

use super::error::RequestError;
use crate::daemon::agent::Agent;

impl Agent {
    /// The service with this name, or the one that has an endpoint on this port.
    pub(in crate::daemon) fn select(&self, selector: &str) -> Result<ServiceId, RequestError> {
        let port: Option<u16> = selector.parse().ok();
        let matches = |service: &Service| match port {
            Some(port) => service.endpoints().iter().any(|endpoint| endpoint.port == port),
            None => service.name().as_str() == selector,
        };
        let mut found =
            self.records.iter().filter(|(_, record)| matches(&record.service)).map(|(id, _)| *id);
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(self.not_found(selector, port)),
            (Some(_), Some(_)) => Err(match port {
                Some(port) => RequestError::Ambiguous { port },
                None => self.not_found(selector, port),
            }),
        }
    }

    /// That one, or all where none is meant, by their names.
    pub(in crate::daemon) fn one_or_all(
        &self,
        selector: Option<String>,
    ) -> Result<Vec<ServiceId>, RequestError> {
        match selector {
            Some(selector) => Ok(vec![self.select(&selector)?]),
            None => {
                let mut all: Vec<_> = self.records.keys().copied().collect();
                all.sort_by_key(|id| self.record(*id).service.name().clone());
                Ok(all)
            }
        }
    }

    fn not_found(&self, selector: &str, port: Option<u16>) -> RequestError {
        let services = self.records.values().map(|it| it.service.name().clone()).collect();
        match port {
            Some(port) => RequestError::NoSuchPort { port, services },
            None => RequestError::NoSuchName { name: selector.to_owned(), services },
        }
    }
}
