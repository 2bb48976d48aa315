//! The control socket, asked directly: what a command costs without the command.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_api::{RolloutView, ServiceView, Services, UndoRequest};
use agent_rollout::DrainPlan;
use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;

use crate::http;
use tests::stage::LIMIT;

/// One connection to the agent, for any number of requests.
#[derive(Debug)]
pub(super) struct Control {
    stream: UnixStream,
    undo: Vec<u8>,
    status: Vec<u8>,
    buffer: Vec<u8>,
}

impl Control {
    /// Connects to the agent that has its socket in this directory, to ask about the service on a port.
    pub(super) fn connect(runtime: &Path, port: u16) -> Result<Self> {
        let stream = UnixStream::connect(runtime.join("agent.sock"))
            .context("connect to the control socket")?;
        stream.set_read_timeout(Some(LIMIT))?;
        let status =
            format!("GET /v1/services/{port} HTTP/1.1\r\nHost: agent\r\n\r\n").into_bytes();
        Ok(Self { stream, undo: undo(port)?, status, buffer: Vec::new() })
    }

    /// Puts the previous generation back, and says how long the answer took.
    pub(super) fn undo(&mut self) -> Result<(Duration, RolloutView)> {
        exchange(&mut self.stream, &self.undo, &mut self.buffer)
    }

    /// Looks at all services.
    pub(super) fn services(&mut self) -> Result<(Duration, Services)> {
        let request = b"GET /v1/services HTTP/1.1\r\nHost: agent\r\n\r\n";
        exchange(&mut self.stream, request, &mut self.buffer)
    }

    /// Looks at the service, and says how long the answer took.
    pub(super) fn status(&mut self) -> Result<(Duration, ServiceView)> {
        exchange(&mut self.stream, &self.status, &mut self.buffer)
    }
}

fn exchange<T: DeserializeOwned>(
    stream: &mut UnixStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(Duration, T)> {
    let begun = Instant::now();
    let answer = http::exchange(stream, request, buffer)?;
    let took = begun.elapsed();
    Ok((took, serde_json::from_slice(answer.body).context("understand the answer")?))
}

/// The request that `agent undo` makes when it is given no options.
fn undo(port: u16) -> Result<Vec<u8>> {
    let body = serde_json::to_string(&UndoRequest {
        drain: DrainPlan::default(),
        if_generation: None,
        if_release: None,
        request: None,
    })?;
    let head = format!(
        "POST /v1/services/{port}/undo HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    Ok(format!("{head}\r\n\r\n{body}").into_bytes())
}
