//! The agent, as a command sees it: each request of the API is a method.

mod error;
mod event_stream;
#[cfg(any(test, feature = "samples"))]
pub mod stub;
#[cfg(test)]
mod tests;
mod transport;

use std::{net::SocketAddr, path::PathBuf};

pub use self::{error::ClientError, event_stream::NoEvent, transport::Stream};
use agent_rollout::RolloutId;
use agent_terms::ServiceName;
use hyper::Method;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    AttachRequest, Attached, Begun, Detached, EventView, Events, Explanation, Flows, History,
    RolloutView, Selected, ServiceView, Services, UndoRequest, UpgradeAnswer, UpgradeRequest,
    operation::at,
};

/// Talks with the agent that has this control socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Does not connect yet: each request does.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// All services.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn services(&self) -> Result<Services, ClientError> {
        self.get("/services").await
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn service(&self, service: &Selected) -> Result<ServiceView, ClientError> {
        self.get(&format!("/services/{service}")).await
    }

    /// Takes charge of a port.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn attach(&self, request: &AttachRequest) -> Result<Attached, ClientError> {
        self.post("/services", request).await
    }

    /// Gives a service back to the kernel.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn detach(&self, service: &Selected) -> Result<Detached, ClientError> {
        let path = format!("/services/{service}");
        transport::value(&self.socket, Method::DELETE, &at(&path), None::<&()>).await
    }

    /// Begins an upgrade, or says what it would do.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn upgrade(
        &self,
        service: &Selected,
        request: &UpgradeRequest,
    ) -> Result<UpgradeAnswer, ClientError> {
        self.post(&format!("/services/{service}/upgrade"), request).await
    }

    /// Begins to go back to the generation before.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn undo(
        &self,
        service: &Selected,
        request: &UndoRequest,
    ) -> Result<Begun, ClientError> {
        self.post(&format!("/services/{service}/undo"), request).await
    }

    /// The connections of a service, or of all.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn flows(&self, service: Option<&Selected>) -> Result<Flows, ClientError> {
        self.get(&of_one_or_all(service, "flows")).await
    }

    /// The rollouts of a service, or of all.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn history(&self, service: Option<&Selected>) -> Result<History, ClientError> {
        self.get(&of_one_or_all(service, "history")).await
    }

    /// Where the kernel would steer a connection from `remote` to `local`.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn explain(
        &self,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> Result<Explanation, ClientError> {
        let remote = remote.map(|remote| format!("&remote={}", encoded(remote)));
        let query = format!("local={}{}", encoded(local), remote.unwrap_or_default());
        self.get(&format!("/explain?{query}")).await
    }

    /// The last events.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn events(&self) -> Result<Events, ClientError> {
        self.get("/events").await
    }

    /// The last events, and each from now on.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn follow_events(&self) -> Result<Stream<EventView>, ClientError> {
        transport::stream(&self.socket, &at("/events?follow=true")).await
    }

    /// How a rollout goes, until it has ended.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the agent says no.
    pub async fn progress(
        &self,
        service: &ServiceName,
        rollout: RolloutId,
    ) -> Result<Stream<RolloutView>, ClientError> {
        let path = format!("/services/{service}/rollouts/{rollout}/progress");
        transport::stream(&self.socket, &at(&path)).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        transport::value(&self.socket, Method::GET, &at(path), None::<&()>).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        transport::value(&self.socket, Method::POST, &at(path), Some(body)).await
    }
}

fn of_one_or_all(service: Option<&Selected>, what: &str) -> String {
    match service {
        Some(service) => format!("/services/{service}/{what}"),
        None => format!("/{what}"),
    }
}

/// An address in a query. Of all that addresses are made of, only the sign before an IPv6 scope means something there.
fn encoded(address: SocketAddr) -> String {
    address.to_string().replace('%', "%25")
}
