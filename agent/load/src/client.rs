//! What the classes share: connecting, asking, and noting the answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::net::SocketType;

use super::answer::Answer;
use super::failure::{Failure, FailureKind, Identity, Progress};
use super::patience::{Exhausted, Patience};
use super::plan::{Marks, Plan, Source};
use super::recorder::Recorder;
use super::report::{Class, Observation};
use super::schedule::{Schedule, Share};
use super::socket::{CHUNK, Socket, Unconnected};

/// The view that the clients of one thread have of the run.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) plan: Arc<Plan>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) share: Share,
    connections: AtomicU64,
    can_meet_itself: bool,
}

/// What a client has for one connection after the other: made anew for each it would cost more than the answers do.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) patience: Patience,
    /// Of the connection before, to be used again.
    pub(super) received: Vec<u8>,
}

/// A connection and what is known of it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) received: Vec<u8>,
    class: Class,
    id: u64,
    started: Instant,
    connected: Instant,
    generation: Option<u32>,
}

impl Client {
    pub(super) fn new(plan: Arc<Plan>, recorder: Arc<Recorder>, share: Share) -> Self {
        let can_meet_itself = takes_port_for_client(plan.target.port());
        Self { plan, recorder, share, connections: AtomicU64::new(0), can_meet_itself }
    }

    /// The thread's part of an open loop.
    pub(super) fn schedule(&self, rate: u32) -> Schedule {
        Schedule { begun: self.recorder.start(), rate, share: self.share }
    }

    pub(super) fn kit(&self) -> Kit {
        Kit { patience: Patience::new(self.plan.timeout), received: Vec::new() }
    }

    /// Connects, for a request that was due at `intended`.
    pub(super) async fn connect(
        &self,
        class: Class,
        intended: Instant,
        buffer: Option<usize>,
        kit: &mut Kit,
    ) -> Result<Connection, Failure> {
        let id = self.share.global(self.connections.fetch_add(1, Ordering::Relaxed));
        self.recorder.connecting(class);
        let started = Instant::now();
        let opened = self.open(id, class, buffer, &mut kit.patience).await;
        let attempt = Identity { started: Some(started), ..Identity::default() };
        let socket = opened.map_err(|failure| failure.of(attempt))?;
        let connected = Instant::now();
        let connection = Connection {
            socket,
            received: std::mem::take(&mut kit.received),
            class,
            id,
            started,
            connected,
            generation: None,
        };
        self.refuse_self(&connection).map_err(|failure| failure.of(attempt))?;
        if self.plan.protocol.transport() == SocketType::DGRAM {
            // Nothing was sent, and so nothing measured.
            return Ok(connection);
        }
        let handshake = connected.duration_since(started);
        self.recorder.connected(class, connected.duration_since(intended), handshake);
        if handshake >= self.plan.slow {
            let slow = Failure::new(FailureKind::Slow, format!("handshake took {handshake:.3?}"));
            self.recorder.failed(class, slow.of(connection.identity()));
        }
        Ok(connection)
    }

    async fn open(
        &self,
        id: u64,
        class: Class,
        buffer: Option<usize>,
        patience: &mut Patience,
    ) -> Result<Socket, Failure> {
        let socket = self.socket(id, buffer).map_err(|error| Failure::opening(&error))?;
        let connected = patience.wait_for(socket.connect(self.plan.target)).await;
        let socket = connected
            .map_err(|Exhausted| Failure::new(FailureKind::TimedOut, "connect"))?
            .map_err(|error| Failure::connecting(&error))?;
        // The only packet that a new connection sends is not held back anyhow.
        if class != Class::OneShot && self.plan.protocol.transport() == SocketType::STREAM {
            socket.send_at_once().map_err(|error| Failure::talking(&error, Progress::None))?;
        }
        Ok(socket)
    }

    /// Sends a request that was due at `intended` and waits for its answer.
    pub(super) async fn ask(
        &self,
        connection: &mut Connection,
        request: &[u8],
        intended: Instant,
        patience: &mut Patience,
    ) -> Result<Answer, Failure> {
        self.recorder.requested(connection.class);
        connection.received.clear();
        let datagrams = self.plan.protocol.transport() == SocketType::DGRAM;
        if datagrams && connection.socket.unasked() {
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
        let answer = match patience.wait_for(exchange).await {
            Ok(answer) => answer.map_err(|failure| failure.of(connection.identity()))?,
            Err(Exhausted) => {
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

    fn socket(&self, id: u64, buffer: Option<usize>) -> std::io::Result<Unconnected> {
        let socket = Unconnected::new(self.plan.protocol.transport(), self.plan.target)?;
        if let Some(buffer) = buffer {
            socket.receive_into(buffer)?;
        }
        if self.plan.source == Source::Spread {
            socket.come_from(spread_source(id))?;
        }
        Ok(socket)
    }

    /// Without a listener on a port of the ephemeral range, a client can be given that very port and meet itself.
    fn refuse_self(&self, connection: &Connection) -> Result<(), Failure> {
        if self.can_meet_itself && connection.client() == Some(self.plan.target) {
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
        let Self { started, generation, .. } = *self;
        Identity { started: Some(started), client: self.client(), generation }
    }

    /// Its own end. Asked for only when it matters: few do, and it is a system call.
    fn client(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(super) fn progress(&self) -> Progress {
        if self.received.is_empty() { Progress::None } else { Progress::Begun }
    }
}

/// Whether an address can be reached from all of 127.0.0.0/8.
pub(super) fn takes_spread_sources(target: SocketAddr) -> bool {
    matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

/// Whether the kernel gives such a port to clients, in the network namespace of this thread. Where it does not tell: maybe.
fn takes_port_for_client(port: u16) -> bool {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let ends = range.and_then(|text| {
        let (first, last) = text.trim().split_once(char::is_whitespace)?;
        Some(first.parse().ok()?..=last.trim().parse().ok()?)
    });
    ends.is_none_or(|ends: std::ops::RangeInclusive<u16>| ends.contains(&port))
}

fn spread_source(id: u64) -> Ipv4Addr {
    let last = u8::try_from(id % SOURCES).map_or(FIRST_SOURCE, |offset| FIRST_SOURCE + offset);
    Ipv4Addr::new(127, 0, 0, last)
}

const LONGEST_ANSWER: usize = 64 * 1024;
const FIRST_SOURCE: u8 = 2;
/// From 127.0.0.2 to 127.0.0.250.
const SOURCES: u64 = 249;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_of_the_kernels_range_can_be_met_by_oneself() {
        let given = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(takes_port_for_client(given.port()));
        assert!(!takes_port_for_client(1));
    }
}
