//! HTTP over the control socket: one connection per request.

use std::{marker::PhantomData, path::Path, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use super::{ClientError, event_stream::Decoder};
use crate::{Problem, trust::refuse_directory_of_others};

/// How long the agent may take to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take to answer: taking charge of a port waits for the kernel to check the programs.
const ANSWER: Duration = Duration::from_secs(60);
/// How long it may say nothing in a stream: it says at least every 15 s that it is still there.
const QUIET: Duration = Duration::from_secs(60);
/// More than any answer: a million flows.
const LARGEST_ANSWER: usize = 256 << 20;

/// Asks for one value.
pub(super) async fn value<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<T, ClientError> {
    let answer = async {
        let response = send(socket, method, path, body).await?;
        read(response).await
    };
    let bytes = timeout(CONNECT + ANSWER, answer).await.map_err(|_late| ClientError::Silent)??;
    serde_json::from_slice(&bytes).map_err(ClientError::Unreadable)
}

/// Asks for a stream of values.
pub(super) async fn stream<T>(socket: &Path, path: &str) -> Result<Stream<T>, ClientError> {
    let asked = send(socket, Method::GET, path, None::<&()>);
    let response =
        timeout(CONNECT + ANSWER, asked).await.map_err(|_late| ClientError::Silent)??;
    let (body, decoder) = (response.into_body(), Decoder::default());
    Ok(Stream { body, decoder, quiet: QUIET, heard: Instant::now(), values: PhantomData })
}

/// Values that come one after the other.
#[derive(Debug)]
pub struct Stream<T> {
    body: Incoming,
    decoder: Decoder,
    quiet: Duration,
    heard: Instant,
    values: PhantomData<T>,
}

impl<T: DeserializeOwned> Stream<T> {
    /// The next one; `None` when the agent has ended the stream. Can be broken off and called again.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(data) = self.decoder.next()? {
                return serde_json::from_str(&data).map(Some).map_err(ClientError::Unreadable);
            }
            // What has come meanwhile is taken also if nobody has asked for it in all that time.
            let frame = timeout_at(self.heard + self.quiet, self.body.frame()).await;
            match frame.map_err(|_late| ClientError::Silent)? {
                None => return Ok(None),
                Some(frame) => {
                    self.heard = Instant::now();
                    if let Ok(bytes) = frame?.into_data() {
                        self.decoder.push(&bytes);
                    }
                }
            }
        }
    }
}

/// Sends a request; what comes back is a success.
async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<Response<Incoming>, ClientError> {
    let bytes = match body {
        Some(body) => serde_json::to_vec(body).map_err(ClientError::Unwritable)?,
        None => Vec::new(),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "agent")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .map_err(ClientError::Unaddressable)?;
    let connection = connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
    // Ends with the response; what it fails with, the response fails with too.
    tokio::spawn(async move { connection.await.ok() });
    let response = sender.send_request(request).await?;
    if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
}

/// Connects to the agent and to nobody else: what it answers is believed, and what is asked may be secret.
async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    let connection = timeout(CONNECT, UnixStream::connect(socket)).await;
    let connection = connection
        .map_err(|_late| ClientError::Silent)?
        .map_err(|error| ClientError::unconnected(socket, error))?;
    // Of whom the kernel says that he listens there (`SO_PEERCRED`).
    let peer = connection.peer_cred().map_err(|error| ClientError::unconnected(socket, error))?;
    if ![0, rustix::process::geteuid().as_raw()].contains(&peer.uid()) {
        return Err(ClientError::Stranger { socket: socket.to_owned(), uid: peer.uid() });
    }
    // Another agent of root's can be put there by whoever can make links.
    let directory = socket.parent().unwrap_or(socket);
    refuse_directory_of_others(directory).map_err(ClientError::Untrusted)?;
    Ok(connection)
}

async fn read(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), LARGEST_ANSWER);
    Ok(body.collect().await.map_err(ClientError::Cut)?.to_bytes())
}

/// What the agent says instead of an answer.
async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status().as_u16();
    match read(response).await {
        Err(error) => error,
        Ok(bytes) => match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => ClientError::Refused(problem),
            Err(_) => ClientError::Foreign { status },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::stub::{Stub, stream as answered},
        *,
    };
    use crate::EventView;

    /// One that stops in the middle, and keeps the connection.
    #[tokio::test]
    async fn a_stream_that_says_nothing_any_more_is_not_waited_for_for_ever() {
        const SHORT: Duration = Duration::from_millis(50);
        let agent = Stub::that_stays(answered(": still here\n\n"));
        let mut events: Stream<EventView> =
            stream(agent.socket(), "/v1/events?follow=true").await.unwrap();
        events.quiet = SHORT;
        let next = timeout(QUIET, events.next()).await.expect("it was given up");
        assert!(matches!(next, Err(ClientError::Silent)), "{next:?}");
        assert!(events.heard.elapsed() >= SHORT);
    }
}
