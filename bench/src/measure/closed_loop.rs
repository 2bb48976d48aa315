//! Clients that ask again as soon as they are answered, to find how much a server can do.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::cores::Cores;
use crate::http;
use tests::stage::LIMIT;

/// How many ask at the same time.
pub(crate) const CLIENTS: u32 = 4;

/// What a client does between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    /// It connects anew.
    Reconnect,
    /// It keeps its connection as long as the server does.
    Keep,
}

/// What the clients did together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) answers: u64,
    pub(crate) took: Duration,
}

impl Done {
    pub(crate) fn per_second(self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }
}

/// Lets the clients ask for a time. Any failure fails all.
pub(crate) fn run(
    cores: &Cores,
    address: SocketAddr,
    between: Between,
    duration: Duration,
) -> Result<Done> {
    let begun = Instant::now();
    let client = || {
        let mut client = Client::new(address);
        match between {
            Between::Reconnect => client.reconnect(begun + duration),
            Between::Keep => client.keep(begun + duration),
        }
    };
    let answers = cores.on_clients(|| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            let answers = clients.into_iter().map(|client| {
                client.join().map_err(|_panic| anyhow!("panic of a client")).flatten()
            });
            answers.sum::<Result<u64>>()
        })
    })?;
    Ok(Done { answers, took: begun.elapsed() })
}

/// One client, which asks on one connection after the other.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    /// What every answer must be, but for white space at its end.
    expected: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::of(address, 1)
    }

    /// One that must be answered by this generation.
    pub(crate) fn of(address: SocketAddr, generation: u32) -> Self {
        let expected = generation.to_string().into_bytes();
        Self { address, expected, buffer: Vec::new() }
    }

    /// Connects, asks once, and waits until the server has closed: that leaves the port to the next connection.
    pub(crate) fn once(&mut self) -> Result<()> {
        let mut stream = self.connect()?;
        let answer = http::exchange(&mut stream, LAST_REQUEST, &mut self.buffer)?;
        ensure!(answer.body.trim_ascii_end() == self.expected, "another generation answered");
        ensure!(stream.read(&mut [0])? == 0, "there is more after the answer");
        Ok(())
    }

    fn reconnect(&mut self, until: Instant) -> Result<u64> {
        let mut answers = 0;
        while Instant::now() < until {
            self.once()?;
            answers += 1;
        }
        Ok(answers)
    }

    fn keep(&mut self, until: Instant) -> Result<u64> {
        let mut answers = 0;
        while Instant::now() < until {
            let mut stream = self.connect()?;
            while Instant::now() < until {
                let answer = http::exchange(&mut stream, REQUEST, &mut self.buffer)?;
                ensure!(
                    answer.body.trim_ascii_end() == self.expected,
                    "another generation answered"
                );
                answers += 1;
                if answer.closes {
                    break;
                }
            }
        }
        Ok(answers)
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    }
}

const REQUEST: &[u8] = b"GET /generation HTTP/1.1\r\nHost: measure\r\n\r\n";
const LAST_REQUEST: &[u8] =
    b"GET /generation HTTP/1.1\r\nHost: measure\r\nConnection: close\r\n\r\n";
