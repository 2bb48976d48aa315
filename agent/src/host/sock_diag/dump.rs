//! Asks the kernel one question and collects the whole answer.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::{
    SockDiagError,
    request::Request,
    wire::{Message, RawSocket, envelopes},
};

/// All sockets that match the request.
///
/// An answer that the kernel marks as inconsistent is thrown away and asked for again, a few times.
pub(super) fn dump(request: &Request<'_>) -> Result<Vec<RawSocket>, SockDiagError> {
    let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(SockDiagError::Open)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(SockDiagError::Open)?;
    for sequence in 1..=ATTEMPTS {
        send(&socket, request, sequence)?;
        if let Answer::Complete(sockets) = receive(&socket, request, sequence)? {
            return Ok(sockets);
        }
    }
    Err(SockDiagError::Interrupted { what: request.what, attempts: ATTEMPTS })
}

/// What one attempt gave.
pub(super) enum Answer {
    Complete(Vec<RawSocket>),
    Interrupted,
}

/// What has come of an answer so far.
#[derive(Default)]
pub(super) struct Collected {
    sockets: Vec<RawSocket>,
    any_interrupted: bool,
}

impl Collected {
    /// Takes what is in one datagram; gives the answer if that is its end.
    pub(super) fn take(
        &mut self,
        what: &'static str,
        sequence: u32,
        datagram: &[u8],
    ) -> Result<Option<Answer>, SockDiagError> {
        for envelope in envelopes(datagram).filter(|it| it.sequence == sequence) {
            self.any_interrupted |= envelope.interrupted;
            match envelope.message {
                Message::Socket(bytes) => self.sockets.push(parse(what, bytes)?),
                Message::Done(Err(number)) | Message::Error(Err(number)) => {
                    return Err(SockDiagError::Refused { what, source: number.into() });
                }
                Message::Done(Ok(())) if self.any_interrupted => {
                    return Ok(Some(Answer::Interrupted));
                }
                Message::Done(Ok(())) => {
                    return Ok(Some(Answer::Complete(std::mem::take(&mut self.sockets))));
                }
                Message::Error(Ok(())) | Message::Other => {}
            }
        }
        Ok(None)
    }

    #[cfg(test)]
    pub(super) fn so_far(self) -> Vec<RawSocket> {
        self.sockets
    }
}

fn send(socket: &Socket, request: &Request<'_>, sequence: u32) -> Result<(), SockDiagError> {
    let failed = |source| SockDiagError::Send { what: request.what, source };
    retry_on_signal(|| socket.send(&request.encode(sequence), 0)).map_err(failed)?;
    Ok(())
}

fn receive(socket: &Socket, request: &Request<'_>, sequence: u32) -> Result<Answer, SockDiagError> {
    let what = request.what;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    let mut collected = Collected::default();
    loop {
        buffer.clear();
        retry_on_signal(|| socket.recv(&mut buffer, 0))
            .map_err(|source| SockDiagError::Receive { what, source })?;
        if let Some(answer) = collected.take(what, sequence, &buffer)? {
            return Ok(answer);
        }
    }
}

pub(super) fn parse(what: &'static str, bytes: &[u8]) -> Result<RawSocket, SockDiagError> {
    let malformed = || SockDiagError::Malformed {
        what,
        part: "a socket",
        got: bytes.len(),
        expected: RawSocket::LENGTH,
    };
    RawSocket::parse(bytes).ok_or_else(malformed)
}

pub(super) fn retry_on_signal<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// How often a question is asked before the answer is given up on.
const ATTEMPTS: u32 = 5;

/// The kernel packs dumps into datagrams as large as the receiver's buffer, but of at most 32 KiB
/// (`netlink_recvmsg`).
const DATAGRAM: usize = 64 * 1024;
