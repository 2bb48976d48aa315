//! The client's end of a connection: a stream, or datagrams to and from one address.
//!
//! What can be done at once is tried before it is waited for: on loopback the handshake is through when `connect` returns, and
//! a request fits into the socket's buffer. A turn through the event loop for each would take as long as both.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, getsockname, recv,
    send, socket_with, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

/// One that is not connected yet.
#[derive(Debug)]
pub(super) struct Unconnected(OwnedFd);

impl Unconnected {
    /// A socket of the target's family.
    pub(super) fn new(kind: SocketType, target: SocketAddr) -> io::Result<Self> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(Self(socket_with(family, kind, flags, None)?))
    }

    /// Lets it come from an address.
    pub(super) fn come_from(&self, source: Ipv4Addr) -> io::Result<()> {
        // Otherwise the port is chosen at bind time, before the target is known, and cannot be shared between targets.
        setsockopt(&self.0, IpBindAddressNoPort, &true)?;
        Ok(bind(&self.0, &SocketAddr::from((source, 0)))?)
    }

    /// Makes the receive buffer of a size in bytes.
    pub(super) fn receive_into(&self, bytes: usize) -> io::Result<()> {
        Ok(sockopt::set_socket_recv_buffer_size(&self.0, bytes)?)
    }

    /// Connects, and returns when the handshake is through.
    pub(super) async fn connect(self, target: SocketAddr) -> io::Result<Socket> {
        let begun = match connect(&self.0, &target) {
            // The same call again tells what has become of it, also if it has failed already.
            Err(Errno::INPROGRESS) => connect(&self.0, &target),
            begun => begun,
        };
        match begun {
            Ok(()) => Ok(Socket(watched(self.0)?)),
            Err(Errno::ALREADY) => {
                let socket = watched(self.0)?;
                socket.writable().await?.retain_ready();
                sockopt::socket_error(&socket)??;
                Ok(Socket(socket))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Socket {
    /// Sends all bytes.
    pub(super) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = match self.try_send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.async_io(Interest::WRITABLE, |_socket| self.try_send(bytes)).await?
                }
                sent => sent?,
            };
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    /// Reads what there is, but at most so many bytes, onto the end of `received`. Zero is the end of a stream.
    pub(super) async fn receive(&self, received: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let before = received.len();
        received.resize(before + most, 0);
        let read = self.fill(&mut received[before..]).await;
        received.truncate(before + read.as_ref().map_or(0, |read| *read));
        read
    }

    async fn fill(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // That a datagram did not arrive is an error without anything to read.
            let mut ready = self.0.ready(Interest::READABLE | Interest::ERROR).await?;
            let read = ready.try_io(|socket| Ok(recv(socket, &mut *buffer, RecvFlags::empty())?.0));
            let Ok(read) = read else { continue };
            // A stream had no more, so that trying again before the next event would be in vain. Another datagram would be
            // one that nobody has asked for.
            if read.as_ref().is_ok_and(|read| (1..buffer.len()).contains(read)) {
                ready.clear_ready();
            }
            return read;
        }
    }

    /// Whether there is something to read that nobody has asked for; a byte of it is lost, and the rest of its datagram.
    pub(super) fn unasked(&self) -> bool {
        recv(&self.0, &mut [0][..], RecvFlags::empty()).is_ok()
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(getsockname(&self.0)?.try_into()?)
    }

    /// Has packets sent at once, without waiting for the acknowledgement of those before.
    pub(super) fn send_at_once(&self) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(&self.0, true)?)
    }

    /// Best effort: with a smaller buffer everything comes as well, only later.
    pub(super) fn widen(&self, receive_buffer: usize) {
        sockopt::set_socket_recv_buffer_size(&self.0, receive_buffer).ok();
    }
}

#[expect(
    deprecated,
    reason = "the successor is unsafe for the sake of descriptors that change; an `OwnedFd` never does"
)]
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(socket)
}

/// Read at once: more than most answers have, and than any datagram on a network of usual frames.
pub(super) const CHUNK: usize = 2_048;
