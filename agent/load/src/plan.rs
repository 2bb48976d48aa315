//! What a load run consists of: the target, the language spoken, and how much of each client class.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// A description of one load run, given to [`Load::start`](super::Load::start).
///
/// A new plan has no clients: each class is added by its own method.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The address that every client connects to.
    pub target: SocketAddr,
    /// The language spoken.
    pub protocol: Protocol,
    /// New connections, one request each.
    pub one_shot: Option<OneShot>,
    /// Connections kept across the run.
    pub keep_alive: Option<KeepAlive>,
    /// Slowly read answers.
    pub stream: Option<Stream>,
    /// Slowly sent requests.
    pub upload: Option<Upload>,
    /// The generations that may answer; `None` accepts any.
    pub generations: Option<RangeInclusive<u32>>,
    /// The source addresses of new connections.
    pub source: Source,
    /// How long a client waits for a connection, and for the next progress on it.
    pub timeout: Duration,
    /// A handshake that takes this long counts as slow: a lost SYN is repeated after one second.
    pub slow: Duration,
    /// Whether single answers are kept for the report, or only their counts.
    pub observations: Observations,
    /// The network namespace of the clients; `None` stays in the caller's.
    pub namespace: Option<Arc<OwnedFd>>,
    /// Whether each answer has to tell its generation.
    pub marks: Marks,
    /// Over how many threads the clients are spread.
    pub threads: u32,
}

impl Plan {
    /// A plan for an HTTP server which answers `/generation` with its generation's number.
    pub fn http(target: SocketAddr) -> Self {
        Self::new(target, Protocol::Http { path: "/generation".to_owned() })
    }

    /// A plan for a Redis server whose `dbfilename` is `gen-N.rdb` in generation N.
    pub fn redis(target: SocketAddr) -> Self {
        Self::new(target, Protocol::Redis)
    }

    /// A plan without clients, with a timeout of five seconds and one second for slow.
    pub fn new(target: SocketAddr, protocol: Protocol) -> Self {
        Self {
            target,
            protocol,
            one_shot: None,
            keep_alive: None,
            stream: None,
            upload: None,
            generations: None,
            source: Source::Kernel,
            timeout: Duration::from_secs(5),
            slow: Duration::from_secs(1),
            observations: Observations::Keep,
            namespace: None,
            marks: Marks::Required,
            threads: 1,
        }
    }

    /// Adds new connections, one request each, at a rate per second.
    #[must_use]
    pub fn one_shot(mut self, rate: u32) -> Self {
        self.one_shot = Some(OneShot { rate, ..OneShot::default() });
        self
    }

    /// Adds kept connections, each with one request every `think`.
    #[must_use]
    pub fn keep_alive(mut self, connections: u32, think: Duration) -> Self {
        self.keep_alive = Some(KeepAlive { connections, pace: Pace::Think(think), requests: None });
        self
    }

    /// Adds kept connections that take turns with an open loop of requests, at a rate per second.
    #[must_use]
    pub fn keep_alive_at(mut self, connections: u32, rate: u32) -> Self {
        self.keep_alive = Some(KeepAlive { connections, pace: Pace::Rate(rate), requests: None });
        self
    }

    /// Adds slow readers of `/stream`.
    #[must_use]
    pub fn stream(mut self, connections: u32) -> Self {
        self.stream = Some(Stream { connections, ..Stream::default() });
        self
    }

    /// Adds slow senders to `/upload`.
    #[must_use]
    pub fn upload(mut self, connections: u32) -> Self {
        self.upload = Some(Upload { connections, ..Upload::default() });
        self
    }

    /// Makes an answer of any other generation a failure.
    #[must_use]
    pub fn generations(mut self, expected: RangeInclusive<u32>) -> Self {
        self.generations = Some(expected);
        self
    }

    /// Chooses where new connections come from.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Runs the clients inside a network namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: Arc<OwnedFd>) -> Self {
        self.namespace = Some(namespace);
        self
    }
}

/// The language the clients speak.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// HTTP/1.1, and 1.0 from servers that answer so.
    Http {
        /// The path whose body is the number of the generation. A header `Generation` with the number is used before that.
        path: String,
    },
    /// A line over TCP, which is answered by a line.
    Line {
        /// What is sent, without the end of the line. An answer whose last word is a number tells its generation by it.
        line: String,
    },
    /// A datagram over UDP, which is answered by a datagram, of which the first 2,048 bytes are read. A connection is a
    /// socket of its own, and so an address.
    Datagram {
        /// What is sent. An answer whose last word is a number tells its generation by it.
        text: String,
    },
    /// Redis: `PING` and `CONFIG GET dbfilename`.
    Redis,
}

/// An open loop of new connections: its rate does not sink when the server slows down.
#[derive(Clone, Debug)]
pub struct OneShot {
    /// Connections per second.
    pub rate: u32,
    /// The most connections at once; the loop is late, and says so, when they are in use.
    pub in_flight: usize,
}

impl Default for OneShot {
    fn default() -> Self {
        Self { rate: 100, in_flight: 8_000 }
    }
}

/// Connections that live as long as both sides keep them.
#[derive(Clone, Debug)]
pub struct KeepAlive {
    /// How many.
    pub connections: u32,
    /// When they ask.
    pub pace: Pace,
    /// After how many answers the client ends a connection by itself and begins another one; `None` keeps it.
    pub requests: Option<u32>,
}

/// When kept connections ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// Each by itself, with this pause between an answer and the next request: slows down with the server.
    Think(Duration),
    /// An open loop of so many requests per second on all of them together, which take turns. A request for which none is
    /// free waits for one, and that counts in its latency.
    Rate(u32),
}

/// Clients that read a large answer so slowly that the server stays blocked in the middle of sending.
#[derive(Clone, Debug)]
pub struct Stream {
    /// How many.
    pub connections: u32,
    /// The path of the large answer.
    pub path: String,
    /// How many bytes are read at once.
    pub bytes: usize,
    /// The pause between two reads.
    pub pause: Duration,
    /// The receive buffer in bytes; small, or the kernel takes the answer in at once.
    pub receive_buffer: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            connections: 1,
            path: "/stream".to_owned(),
            bytes: 16,
            pause: Duration::from_millis(100),
            receive_buffer: 4_096,
        }
    }
}

/// Clients that send a request body byte by byte.
#[derive(Clone, Debug)]
pub struct Upload {
    /// How many.
    pub connections: u32,
    /// The path that takes a body and answers with the generation's number.
    pub path: String,
    /// The length of the body.
    pub bytes: u32,
    /// The pause between two bytes.
    pub pause: Duration,
}

impl Default for Upload {
    fn default() -> Self {
        Self {
            connections: 1,
            path: "/upload".to_owned(),
            bytes: 100,
            pause: Duration::from_millis(100),
        }
    }
}

/// Where new connections come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The kernel chooses: about 28,000 connections a minute to one target.
    Kernel,
    /// In turn from 127.0.0.2 to 127.0.0.250, which a high rate needs. Only for targets in 127.0.0.0/8.
    Spread,
}

/// Whether an answer has to tell the generation that gave it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Marks {
    /// One that does not is a wrong answer.
    Required,
    /// One that does not is an answer of an unknown generation.
    Optional,
}

/// Whether every answer is kept for the report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Observations {
    /// Keep them: about 80 bytes an answer.
    Keep,
    /// Keep only counts and latencies, for long runs.
    Discard,
}
