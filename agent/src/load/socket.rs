//! The client's end of a connection: a stream, or datagrams to and from one address.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// A connected socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Socket {
    /// Sends all bytes.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Udp(socket) => socket.send(bytes).await.map(drop),
        }
    }

    /// Reads what there is, but at most so many bytes, onto the end of `received`. Zero is the end of a stream.
    pub(super) async fn receive(
        &mut self,
        received: &mut Vec<u8>,
        most: usize,
    ) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                received.reserve(most);
                let mut limited = stream.take(u64::try_from(most).unwrap_or(u64::MAX));
                limited.read_buf(received).await
            }
            Self::Udp(socket) => {
                received.reserve(most);
                socket.recv_buf(received).await
            }
        }
    }

    /// Whether datagrams came that nobody has asked for; they are lost.
    pub(super) fn unasked(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Udp(socket) => socket.try_recv(&mut [0]).is_ok(),
        }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }

    /// Best effort: with a smaller buffer everything comes as well, only later.
    pub(super) fn widen(&self, receive_buffer: usize) {
        let set = match self {
            Self::Tcp(stream) => SockRef::from(stream).set_recv_buffer_size(receive_buffer),
            Self::Udp(socket) => SockRef::from(socket).set_recv_buffer_size(receive_buffer),
        };
        set.ok();
    }
}

/// Read at once: more than most answers have, and than any datagram on a network of usual frames.
pub(super) const CHUNK: usize = 2_048;
