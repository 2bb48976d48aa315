//! Request bodies sent byte by byte: the server is in the middle of reading one for seconds.

use std::sync::Arc;
use std::time::Instant;

use super::client::{Client, Connection};
use super::failure::{Failure, FailureKind, Progress};
use super::http;
use super::plan::Upload;
use super::report::Class;
use super::stop::Stop;

/// Sends one body after the other; when the end is requested, the rest of the last one at once.
pub(super) async fn run(client: Arc<Client>, settings: Upload, mut stop: Stop) {
    let head = http::post(&settings.path, settings.bytes);
    while !stop.requested() {
        if let Err(failure) = one(&client, &settings, &head, &mut stop).await {
            client.recorder.failed(Class::Upload, failure);
            stop.pause(settings.pause).await;
        }
    }
}

async fn one(
    client: &Client,
    settings: &Upload,
    head: &[u8],
    stop: &mut Stop,
) -> Result<(), Failure> {
    let intended = Instant::now();
    client.recorder.begun(Class::Upload, intended);
    let mut connection = client.connect(Class::Upload, intended, None, &mut client.kit()).await?;
    client.recorder.requested(Class::Upload);
    let generation = send(client, settings, head, &mut connection, stop).await;
    let generation = generation.map_err(|failure| failure.of(connection.identity()))?;
    client.answered(&mut connection, intended, generation);
    Ok(())
}

/// Sends the request and reads the answer, which tells the generation.
async fn send(
    client: &Client,
    settings: &Upload,
    head: &[u8],
    connection: &mut Connection,
    stop: &mut Stop,
) -> Result<Option<u32>, Failure> {
    let cut = |error: std::io::Error| Failure::talking(&error, Progress::Begun);
    connection.socket.send(head).await.map_err(cut)?;
    for _ in 0..settings.bytes {
        if !stop.requested() {
            stop.pause(settings.pause).await;
        }
        connection.socket.send(b"x").await.map_err(cut)?;
    }
    let answer = tokio::time::timeout(client.plan.timeout, client.understand(connection)).await;
    let answer = answer
        .map_err(|elapsed| Failure::new(FailureKind::TimedOut, format!("answer: {elapsed}")))??;
    Ok(answer.generation)
}
