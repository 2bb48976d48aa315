//! Connections that are kept as long as the server keeps them, with a request now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::failure::Failure;
use super::http::After;
use super::plan::KeepAlive;
use super::report::Class;
use super::stop::Stop;

/// Keeps one connection, the one of `number`, and replaces it whenever it ends before the run does.
pub(super) async fn run(client: Arc<Client>, settings: KeepAlive, number: u32, mut stop: Stop) {
    let request = client.plan.protocol.request(After::Keep);
    // Spread over the first interval, or all connections would ask at the same instants for ever.
    stop.pause(settings.think * number / settings.connections.max(1)).await;
    while !stop.requested() {
        match one(&client, &request, &settings, &mut stop).await {
            Ok(End::Stopped) => break,
            Ok(End::Enough) => {}
            Ok(End::Closed) => client.recorder.closed(Class::KeepAlive),
            Err(failure) => client.recorder.failed(Class::KeepAlive, failure),
        }
        stop.pause(settings.think.max(LEAST_PAUSE)).await;
    }
}

async fn one(
    client: &Client,
    request: &[u8],
    settings: &KeepAlive,
    stop: &mut Stop,
) -> Result<End, Failure> {
    let mut intended = Instant::now();
    let mut connection = client.connect(Class::KeepAlive, intended, None).await?;
    for number in 1_u32.. {
        // The last request comes after the wish to stop: it shows that the connection lives to the very end.
        let last = stop.requested();
        let answer = client.ask(&mut connection, request, intended).await?;
        if !answer.reusable {
            return Ok(End::Closed);
        }
        if last {
            return Ok(End::Stopped);
        }
        if settings.requests == Some(number) {
            break;
        }
        stop.pause(settings.think).await;
        intended = Instant::now();
    }
    Ok(End::Enough)
}

/// How a connection ended well.
enum End {
    Stopped,
    /// The client has asked as often as planned.
    Enough,
    /// The server had announced it in its last answer.
    Closed,
}

/// Between attempts to connect to a server that is not there.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
