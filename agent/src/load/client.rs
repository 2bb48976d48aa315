//! What the classes share: connecting, asking, and noting the answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::answer::Answer;
use super::failure::{Failure, FailureKind, Identity, Progress};
use super::plan::{Marks, Plan, Protocol, Source};
use super::recorder::Recorder;
use super::report::{Class, Observation};
use super::schedule::{Schedule, Share};
use super::socket::{CHUNK, Socket};

/// The view that the clients of one thread have of the run.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) plan: Arc<Plan>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) share: Share,
    connections: AtomicU64,
}

/// A connection and what is known of it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) received: Vec<u8>,
    class: Class,
    id: u64,
    client: SocketAddr,
    started: Instant,
    connected: Instant,
    generation: Option<u32>,
}

impl Client {
    pub(super) fn new(plan: Arc<Plan>, recorder: Arc<Recorder>, share: Share) -> Self {
        Self { plan, recorder, share, connections: AtomicU64::new(0) }
    }

    /// The thread's part of an open loop.
    pub(super) fn schedule(&self, rate: u32) -> Schedule {
        Schedule { begun: self.recorder.start(), rate, share: self.share }
    }

    /// Connects, for a request that was due at `intended`.
    pub(super) async fn connect(
        &self,
        class: Class,
        intended: Instant,
        buffer: Option<u32>,
    ) -> Result<Connection, Failure> {
        let id = self.share.global(self.connections.fetch_add(1, Ordering::Relaxed));
        self.recorder.connecting(class);
        let started = Instant::now();
        let attempt = Identity { started: Some(started), ..Identity::default() };
        let socket = self.open(id, class, buffer).await.map_err(|failure| failure.of(attempt))?;
        let connected = Instant::now();
        let client = socket
            .local_addr()
            .map_err(|error| Failure::talking(&error, Progress::None).of(attempt))?;
        self.refuse_self(client).map_err(|failure| failure.of(attempt))?;
        let connection = Connection {
            socket,
            received: Vec::with_capacity(CHUNK),
            class,
            id,
            client,
            started,
            connected,
            generation: None,
        };
        let handshake = connected.duration_since(started);
        match connection.socket {
            Socket::Tcp(_) => {
                self.recorder.connected(class, connected.duration_since(intended), handshake);
            }
            // Nothing was sent, and so nothing measured.
            Socket::Udp(_) => return Ok(connection),
        }
        if handshake >= self.plan.slow {
            let slow = Failure::new(FailureKind::Slow, format!("handshake took {handshake:.3?}"));
            self.recorder.failed(class, slow.of(connection.identity()));
        }
        Ok(connection)
    }

    async fn open(&self, id: u64, class: Class, buffer: Option<u32>) -> Result<Socket, Failure> {
        match self.plan.protocol {
            Protocol::Http { .. } | Protocol::Line { .. } | Protocol::Redis => {
                self.open_stream(id, class, buffer).await.map(Socket::Tcp)
            }
            Protocol::Datagram { .. } => self.open_datagrams(id).await.map(Socket::Udp),
        }
    }

    async fn open_stream(
        &self,
        id: u64,
        class: Class,
        buffer: Option<u32>,
    ) -> Result<TcpStream, Failure> {
        let socket = self.socket(id, buffer).map_err(|error| Failure::opening(&error))?;
        let connected =
            tokio::time::timeout(self.plan.timeout, socket.connect(self.plan.target)).await;
        match connected {
            Ok(Ok(stream)) => {
                // The only packet that a new connection sends is not held back anyhow.
                if class != Class::OneShot {
                    let set = stream.set_nodelay(true);
                    set.map_err(|error| Failure::talking(&error, Progress::None))?;
                }
                Ok(stream)
            }
            Ok(Err(error)) => Err(Failure::connecting(&error)),
            Err(_elapsed) => Err(Failure::new(FailureKind::TimedOut, "connect")),
        }
    }

    async fn open_datagrams(&self, id: u64) -> Result<UdpSocket, Failure> {
        let local = match (self.plan.source, self.plan.target) {
            (Source::Spread, _) => SocketAddr::from((spread_source(id), 0)),
            (Source::Kernel, SocketAddr::V4(_)) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            (Source::Kernel, SocketAddr::V6(_)) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(local).await.map_err(|error| Failure::opening(&error))?;
        socket.connect(self.plan.target).await.map_err(|error| Failure::connecting(&error))?;
        Ok(socket)
    }

    /// Sends a request that was due at `intended` and waits for its answer.
    pub(super) async fn ask(
        &self,
        connection: &mut Connection,
        request: &[u8],
        intended: Instant,
    ) -> Result<Answer, Failure> {
        self.recorder.requested(connection.class);
        connection.received.clear();
        if connection.socket.unasked() {
            let failure =
                Failure::new(FailureKind::WrongAnswer, "a datagram more than was asked for");
            return Err(failure.of(connection.identity()));
        }
        let exchange = async {
            connection
                .socket
                .send(request)
                .await
                .map_err(|error| Failure::talking(&error, Progress::None))?;
            self.understand(connection).await
        };
        let answer = match tokio::time::timeout(self.plan.timeout, exchange).await {
            Ok(answer) => answer.map_err(|failure| failure.of(connection.identity()))?,
            Err(_elapsed) => {
                let waited = format!("answer, after {} bytes", connection.received.len());
                let failure = Failure::new(FailureKind::TimedOut, waited);
                return Err(failure.of(connection.identity()));
            }
        };
        self.answered(connection, intended, answer.generation);
        Ok(answer)
    }

    /// Reads until the answer is complete.
    pub(super) async fn understand(&self, connection: &mut Connection) -> Result<Answer, Failure> {
        loop {
            let ended = connection.receive().await? == 0;
            let received = &connection.received;
            match self.plan.protocol.answer(received, ended) {
                Ok(Some(answer)) => return self.marked(answer),
                Ok(None) if ended => {
                    return Err(Failure::ended(
                        connection.progress(),
                        format!("after {} bytes", received.len()),
                    ));
                }
                Ok(None) if received.len() > LONGEST_ANSWER => {
                    return Err(Failure::new(FailureKind::WrongAnswer, "too long"));
                }
                Ok(None) => {}
                Err(reason) => return Err(Failure::new(FailureKind::WrongAnswer, reason)),
            }
        }
    }

    fn marked(&self, answer: Answer) -> Result<Answer, Failure> {
        match (self.plan.marks, answer.generation) {
            (Marks::Required, None) => {
                Err(Failure::new(FailureKind::WrongAnswer, "it tells no generation"))
            }
            (Marks::Required | Marks::Optional, _) => Ok(answer),
        }
    }

    /// Notes an answer to a request that was due at `intended`.
    pub(super) fn answered(
        &self,
        connection: &mut Connection,
        intended: Instant,
        generation: Option<u32>,
    ) {
        let answered = Instant::now();
        let Connection { class, id, started, connected, .. } = *connection;
        let observation =
            Observation { class, connection: id, started, connected, answered, generation };
        self.recorder.answered(answered.duration_since(intended), observation);
        let Some(generation) = generation else { return };
        if let Some(before) =
            connection.generation.replace(generation).filter(|before| *before != generation)
        {
            let moved = format!("connection {id} from generation {before} to {generation}");
            let failure = Failure::new(FailureKind::Moved, moved);
            self.recorder.failed(class, failure.of(connection.identity()));
        }
        if let Some(expected) =
            self.plan.generations.as_ref().filter(|expected| !expected.contains(&generation))
        {
            let wrong = format!("{generation} is not in {expected:?}");
            let failure = Failure::new(FailureKind::WrongGeneration, wrong);
            self.recorder.failed(class, failure.of(connection.identity()));
        }
    }

    fn socket(&self, id: u64, buffer: Option<u32>) -> std::io::Result<TcpSocket> {
        let socket =
            if self.plan.target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(buffer) = buffer {
            socket.set_recv_buffer_size(buffer)?;
        }
        if self.plan.source == Source::Spread {
            // Otherwise the port is chosen at bind time, before the target is known, and cannot be shared between targets.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(SocketAddr::from((spread_source(id), 0)))?;
        }
        Ok(socket)
    }

    /// Without a listener on a port of the ephemeral range, a client can be given that very port and meet itself.
    fn refuse_self(&self, client: SocketAddr) -> Result<(), Failure> {
        if client == self.plan.target {
            return Err(Failure::new(FailureKind::Refused, "connected to itself"));
        }
        Ok(())
    }
}

impl Connection {
    /// Reads what there is onto the end of `received`; zero is the end of the connection.
    pub(super) async fn receive(&mut self) -> Result<usize, Failure> {
        let read = self.socket.receive(&mut self.received, CHUNK).await;
        read.map_err(|error| Failure::talking(&error, self.progress()))
    }

    /// What is noted with a failure.
    pub(super) fn identity(&self) -> Identity {
        let Self { started, client, generation, .. } = *self;
        Identity { started: Some(started), client: Some(client), generation }
    }

    pub(super) fn progress(&self) -> Progress {
        if self.received.is_empty() { Progress::None } else { Progress::Begun }
    }
}

/// Whether an address can be reached from all of 127.0.0.0/8.
pub(super) fn takes_spread_sources(target: SocketAddr) -> bool {
    matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

fn spread_source(id: u64) -> Ipv4Addr {
    let last = u8::try_from(id % SOURCES).map_or(FIRST_SOURCE, |offset| FIRST_SOURCE + offset);
    Ipv4Addr::new(127, 0, 0, last)
}

const LONGEST_ANSWER: usize = 64 * 1024;
const FIRST_SOURCE: u8 = 2;
/// From 127.0.0.2 to 127.0.0.250.
const SOURCES: u64 = 249;
