//! Asking the agent about a service, also when it may have been killed just now.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use agent_api::{Events, GenerationState, History, RolloutView, ServiceState, ServiceView};
use anyhow::{Context as _, Result, anyhow};
use serde::de::DeserializeOwned;

use super::world::World;
use crate::http;
use tests::wait;

/// The agent, as one who looks after one service sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control<'world> {
    pub(super) world: &'world World,
    pub(super) port: u16,
}

impl Control<'_> {
    /// What the agent knows of the service. Fails while there is no agent.
    pub(super) fn service(&self) -> Result<ServiceView> {
        self.ask(&format!("/v1/services/{}", self.port))
    }

    /// The rollouts that the agent remembers, waiting for one to answer.
    pub(super) fn rollouts(&self) -> Result<Vec<RolloutView>> {
        let path = format!("/v1/services/{}/history", self.port);
        let history: History = self.until("the history", |control| control.ask(&path).map(Some))?;
        Ok(history.rollouts)
    }

    /// What the agent has told of the service last, for whoever looks for the reason of a failure.
    pub(super) fn last_events(&self) -> String {
        let told = self.service().and_then(|service| {
            let all: Events = self.ask("/v1/events")?;
            let ours =
                all.events.into_iter().filter(|it| it.service.as_ref() == Some(&service.name));
            Ok(ours.map(|event| event.message).collect::<Vec<_>>())
        });
        match told {
            Ok(told) => told[told.len().saturating_sub(MOST_EVENTS)..].join("\n"),
            Err(error) => format!("no events: {error:#}"),
        }
    }

    /// Waits until the service is as wanted. Fails at once if nobody serves any more: no event may lead to that.
    pub(super) fn until_service(
        &self,
        what: &str,
        wanted: impl Fn(&ServiceView) -> bool,
    ) -> Result<ServiceView> {
        self.until(what, |control| {
            let service = control.service()?;
            let dead = service.generations.iter().find(|it| it.state == GenerationState::Dead);
            if let Some(dead) = dead {
                return Ok(Some(Err(anyhow!("nobody serves, generation {} is dead", dead.number))));
            }
            Ok(wanted(&service).then_some(Ok(service)))
        })?
    }

    /// Waits until one generation is left and no rollout is under way.
    pub(super) fn until_steady(&self) -> Result<ServiceView> {
        self.until_service("one generation to be left", |service| {
            service.state == ServiceState::Steady && service.generations.len() == 1
        })
    }

    /// Asks again and again. That there is no answer may be because there is no agent just now.
    pub(super) fn until<T>(
        &self,
        what: &str,
        mut ask: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut last = None;
        let answer = wait::until(what, PATIENCE, || match ask(self) {
            Ok(answer) => Ok(answer),
            Err(error) => {
                last = Some(format!("{error:#}"));
                Ok(None)
            }
        });
        answer.with_context(|| {
            let service = self.service().map(|service| format!("{service:?}"));
            format!("last failure {last:?}, now {service:?}")
        })
    }

    fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let socket = self.world.stage.agent.runtime().join("agent.sock");
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
        let mut buffer = Vec::new();
        let answer = http::exchange(&mut stream, request.as_bytes(), &mut buffer)?;
        serde_json::from_slice(answer.body).context("understand the answer")
    }

    /// Waits until no agent is killed that nobody has started again.
    pub(super) fn until_agent_is_back(&self) -> Result<()> {
        wait::until("the agent to come back", PATIENCE, || {
            let away = self.world.notes().outages.iter().any(|outage| outage.back.is_none());
            Ok((!away).then_some(()))
        })
    }
}

/// Far more than a drain or a restart takes.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_EVENTS: usize = 12;
