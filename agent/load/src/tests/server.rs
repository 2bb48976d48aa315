//! A small HTTP server whose faults are known exactly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Answers with a generation and keeps the connection.
    Answer(u32),
    /// Answers with a generation, announcing the end of the connection.
    AnswerAndClose(u32),
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits.
    Wait(Duration),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// A server that treats each connection by the same script: one step for each request, `Send` and `Wait` excepted,
/// which the next step follows at once. The last step is repeated.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// How many connections were treated by the script of [`Server::faulty`].
    pub(super) faults: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(script: &[Step]) -> Self {
        Self::on(listener(), script)
    }

    pub(super) fn on(listener: TcpListener, script: &[Step]) -> Self {
        Self::with(listener, script.to_vec(), u64::MAX, Vec::new())
    }

    /// A server that answers with generation 1, but treats each `every`-th connection by the script of a fault.
    pub(super) fn faulty(every: u64, fault: &[Step]) -> Self {
        Self::with(listener(), vec![Step::Answer(1)], every, fault.to_vec())
    }

    fn with(listener: TcpListener, script: Vec<Step>, every: u64, fault: Vec<Step>) -> Self {
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&faults);
        let task = tokio::spawn(async move {
            for number in 1_u64.. {
                let (stream, _) = listener.accept().await.unwrap();
                let is_fault = number.is_multiple_of(every);
                count.fetch_add(u64::from(is_fault), Ordering::Relaxed);
                let script = if is_fault { fault.clone() } else { script.clone() };
                tokio::spawn(async move { serve(stream, &script).await });
            }
        });
        Self { address, faults, task }
    }
}

/// One whose queue holds what comes while a busy machine does something else: a SYN that is lost would be a fault too.
fn listener() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(4_096).unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: &[Step]) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut steps = script.iter().chain(std::iter::repeat(script.last()?));
    loop {
        request(&mut stream).await?;
        loop {
            match steps.next()? {
                Step::Answer(generation) => {
                    stream.write_all(&answer(*generation, "keep-alive")).await.ok()?;
                    break;
                }
                Step::AnswerAndClose(generation) => {
                    stream.write_all(&answer(*generation, "close")).await.ok()?;
                    return Some(());
                }
                Step::Send(bytes) => stream.write_all(bytes).await.ok()?,
                Step::Wait(duration) => tokio::time::sleep(*duration).await,
                Step::Close => return Some(()),
                Step::Reset => {
                    stream.set_zero_linger().ok()?;
                    return Some(());
                }
            }
        }
    }
}

/// Reads a request with its body.
async fn request(stream: &mut TcpStream) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return Some(());
        }
    }
}

pub(super) fn answer(generation: u32, connection: &str) -> Vec<u8> {
    let body = format!("{generation}\n");
    format!(
        "HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The first `sent` bytes of a stream of `length`.
pub(super) fn part_of_stream(generation: u32, length: usize, sent: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let body = format!("{generation}\n").into_bytes().into_iter().cycle().take(sent);
    head.into_bytes().into_iter().chain(body).collect()
}
