//! Large answers read so slowly that the server stays blocked in the middle of sending.

use std::sync::Arc;
use std::time::Instant;

use super::chunks::Chunks;
use super::client::{Client, Connection};
use super::failure::{Failure, FailureKind, Progress};
use super::http::{self, After, Framing, Head};
use super::plan::Stream;
use super::report::Class;
use super::stop::Stop;

/// Reads one large answer after the other; when the end is requested, the last one quickly and to its end.
pub(super) async fn run(client: Arc<Client>, settings: Stream, mut stop: Stop) {
    let request = http::get(&settings.path, After::Close);
    while !stop.requested() {
        if let Err(failure) = one(&client, &settings, &request, &mut stop).await {
            client.recorder.failed(Class::Stream, failure);
            stop.pause(settings.pause).await;
        }
    }
}

async fn one(
    client: &Client,
    settings: &Stream,
    request: &[u8],
    stop: &mut Stop,
) -> Result<(), Failure> {
    let intended = Instant::now();
    client.recorder.begun(Class::Stream, intended);
    let mut kit = client.kit();
    let buffer = Some(settings.receive_buffer);
    let mut connection = client.connect(Class::Stream, intended, buffer, &mut kit).await?;
    client.recorder.requested(Class::Stream);
    let generation = take(client, settings, request, &mut connection, stop).await;
    let generation = generation.map_err(|failure| failure.of(connection.identity()))?;
    client.answered(&mut connection, intended, generation);
    Ok(())
}

/// Sends the request and reads the answer, which may tell the generation.
async fn take(
    client: &Client,
    settings: &Stream,
    request: &[u8],
    connection: &mut Connection,
    stop: &mut Stop,
) -> Result<Option<u32>, Failure> {
    let body = tokio::time::timeout(client.plan.timeout, begin(connection, request)).await;
    let mut body =
        body.map_err(|elapsed| Failure::new(FailureKind::TimedOut, format!("head: {elapsed}")))??;
    while !stop.requested() && !body.complete() {
        stop.pause(settings.pause).await;
        read(client, connection, &mut body, settings.bytes).await?;
    }
    connection.socket.widen(QUICK_BUFFER);
    while !body.complete() {
        read(client, connection, &mut body, QUICK_BUFFER).await?;
    }
    Ok(body.generation())
}

/// Sends the request and reads the head of the answer, with the part of the body that came with it.
async fn begin(connection: &mut Connection, request: &[u8]) -> Result<Body, Failure> {
    connection
        .socket
        .send(request)
        .await
        .map_err(|error| Failure::talking(&error, Progress::None))?;
    loop {
        let ended = connection.receive().await? == 0;
        match Head::parse(&connection.received) {
            Ok(Some(Head { end, framing, .. })) => {
                let mut body = Body::new(framing)?;
                body.take(&connection.received[end..])?;
                return Ok(body);
            }
            Ok(None) if ended => {
                return Err(Failure::ended(connection.progress(), "within the head"));
            }
            Ok(None) => {}
            Err(reason) => return Err(wrong(reason)),
        }
    }
}

async fn read(
    client: &Client,
    connection: &mut Connection,
    body: &mut Body,
    most: usize,
) -> Result<(), Failure> {
    connection.received.clear();
    let receive = connection.socket.receive(&mut connection.received, most);
    let read = match tokio::time::timeout(client.plan.timeout, receive).await {
        Ok(read) => read.map_err(|error| Failure::talking(&error, Progress::Begun))?,
        Err(_elapsed) => return Err(Failure::new(FailureKind::TimedOut, body.describe())),
    };
    if read == 0 {
        return Err(Failure::ended(Progress::Begun, body.describe()));
    }
    body.take(&connection.received)
}

/// A body as far as it was read.
#[derive(Debug)]
struct Body {
    extent: Extent,
    read: u64,
    mark: Mark,
}

/// Where a body ends.
#[derive(Debug)]
enum Extent {
    Length(u64),
    /// With the part of them that was not understood yet.
    Chunks {
        chunks: Chunks,
        rest: Vec<u8>,
    },
}

/// A body that begins with a generation's number on a line must repeat that line to its end, so that bytes of two servers
/// cannot pass for one answer.
#[derive(Debug)]
enum Mark {
    /// The first line is not complete.
    Reading(Vec<u8>),
    /// Every line is this one.
    Repeated { line: Vec<u8>, generation: u32 },
    /// Any other content is only counted.
    Other,
}

impl Body {
    fn new(framing: Framing) -> Result<Self, Failure> {
        let extent = match framing {
            Framing::Length(length) => Extent::Length(length),
            Framing::Chunks => Extent::Chunks { chunks: Chunks::default(), rest: Vec::new() },
            Framing::UntilEnd => return Err(wrong("a stream without a length or chunks")),
        };
        Ok(Self { extent, read: 0, mark: Mark::Reading(Vec::new()) })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.extent {
            Extent::Length(_) => self.take_content(bytes)?,
            Extent::Chunks { chunks, rest } => {
                rest.extend_from_slice(bytes);
                let mut content = Vec::new();
                let taken = chunks.decode(rest, &mut content).map_err(wrong)?;
                rest.drain(..taken);
                self.take_content(&content)?;
            }
        }
        match &self.extent {
            Extent::Length(length) if self.read > *length => {
                Err(wrong(format!("more than {length} bytes")))
            }
            Extent::Chunks { rest, .. } if self.complete() && !rest.is_empty() => {
                Err(wrong(format!("{} bytes more than its chunks", rest.len())))
            }
            Extent::Length(_) | Extent::Chunks { .. } => Ok(()),
        }
    }

    fn take_content(&mut self, content: &[u8]) -> Result<(), Failure> {
        content.iter().try_for_each(|byte| self.take_one(*byte))
    }

    fn take_one(&mut self, byte: u8) -> Result<(), Failure> {
        match &mut self.mark {
            Mark::Reading(line) => {
                line.push(byte);
                if byte == b'\n' || line.len() == LONGEST_LINE {
                    self.mark = Mark::of(std::mem::take(line));
                }
            }
            Mark::Repeated { line, .. } => {
                let place = usize::try_from(self.read).unwrap_or_default() % line.len();
                if line[place] != byte {
                    return Err(wrong(format!("byte {} is foreign", self.read)));
                }
            }
            Mark::Other => {}
        }
        self.read += 1;
        Ok(())
    }

    fn complete(&self) -> bool {
        match &self.extent {
            Extent::Length(length) => self.read >= *length,
            Extent::Chunks { chunks, .. } => chunks.complete(),
        }
    }

    fn generation(&self) -> Option<u32> {
        match self.mark {
            Mark::Repeated { generation, .. } => Some(generation),
            Mark::Reading(_) | Mark::Other => None,
        }
    }

    fn describe(&self) -> String {
        match &self.extent {
            Extent::Length(length) => format!("body, after {} of {length} bytes", self.read),
            Extent::Chunks { .. } => format!("body, after {} bytes in chunks", self.read),
        }
    }
}

impl Mark {
    fn of(line: Vec<u8>) -> Self {
        let number = line.strip_suffix(b"\n").and_then(|number| std::str::from_utf8(number).ok());
        match number.and_then(|number| number.parse().ok()) {
            Some(generation) => Self::Repeated { line, generation },
            None => Self::Other,
        }
    }
}

fn wrong(reason: impl Into<String>) -> Failure {
    Failure::new(FailureKind::WrongAnswer, reason)
}

const QUICK_BUFFER: usize = 256 * 1024;
/// Long enough for any number.
const LONGEST_LINE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_repeated_numbers_tells_its_generation() {
        let mut body = Body::new(Framing::Length(8)).unwrap();
        body.take(b"12\n1").unwrap();
        body.take(b"2\n12").unwrap();
        assert!(body.complete());
        assert_eq!(body.generation(), Some(12));
    }

    #[test]
    fn bytes_of_another_generation_are_found() {
        let mut body = Body::new(Framing::Length(8)).unwrap();
        body.take(b"1\n1\n").unwrap();
        assert_eq!(body.take(b"2\n").unwrap_err().kind, FailureKind::WrongAnswer);
    }

    #[test]
    fn unmarked_content_is_only_counted() {
        let mut body = Body::new(Framing::Length(8)).unwrap();
        body.take(b"ab\ncdefg").unwrap();
        assert!(body.complete());
        assert_eq!(body.generation(), None);
    }

    #[test]
    fn chunks_are_read_to_their_end_and_no_further() {
        let mut body = Body::new(Framing::Chunks).unwrap();
        for part in [&b"3\r\n1\n"[..], b"1\r", b"\n1\r\n\n\r\n0\r", b"\n\r"] {
            body.take(part).unwrap();
            assert!(!body.complete());
        }
        body.take(b"\n").unwrap();
        assert!(body.complete());
        assert_eq!((body.generation(), body.read), (Some(1), 4));
        assert_eq!(body.take(b"1").unwrap_err().kind, FailureKind::WrongAnswer);
    }
}
