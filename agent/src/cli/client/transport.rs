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
use tokio::{net::UnixStream, time::timeout};

use super::{ClientError, event_stream::Decoder};
use crate::api::Problem;

/// How long the agent may take to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take to answer: taking charge of a port waits for the kernel to check the programs.
const ANSWER: Duration = Duration::from_secs(60);
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
    Ok(Stream { body: response.into_body(), decoder: Decoder::default(), values: PhantomData })
}

/// Values that come one after the other.
#[derive(Debug)]
pub(in crate::cli) struct Stream<T> {
    body: Incoming,
    decoder: Decoder,
    values: PhantomData<T>,
}

impl<T: DeserializeOwned> Stream<T> {
    /// The next one; `None` when the agent has ended the stream. Can be broken off and called again.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(data) = self.decoder.next()? {
                return serde_json::from_str(&data).map(Some).map_err(ClientError::Unreadable);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
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
    let connection = timeout(CONNECT, UnixStream::connect(socket)).await;
    let connection = connection
        .map_err(|_late| ClientError::Silent)?
        .map_err(|error| ClientError::unconnected(socket, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
    // Ends with the response; what it fails with, the response fails with too.
    tokio::spawn(async move { connection.await.ok() });
    let response = sender.send_request(request).await?;
    if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
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
