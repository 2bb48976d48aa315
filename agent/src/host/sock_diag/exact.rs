//! One connection by its two ends.

use std::net::SocketAddr;

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use super::{
    SockDiagError,
    dump::{parse, retry_on_signal},
    flows::{Connection, connection},
    request::encode_exact,
    wire::{Message, envelopes},
};

/// The server's end of a connection, if it is there and not half-open.
///
/// # Kernel
///
/// What is no full connection is looked up as a new packet would be (`inet_lookup`), so that `steer` runs for it and a listener
/// is the answer, which is none.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub fn connection_between(
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<Option<Connection>, SockDiagError> {
    const SEQUENCE: u32 = 1;
    let what = "one connection";
    let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(SockDiagError::Open)?;
    socket.connect(&NetlinkAddress::new(0, 0)).map_err(SockDiagError::Open)?;
    retry_on_signal(|| socket.send(&encode_exact(local, remote, SEQUENCE), 0))
        .map_err(|source| SockDiagError::Send { what, source })?;
    // The kernel answers within the call that asks: an answer is there.
    let mut buffer = Vec::with_capacity(4096);
    retry_on_signal(|| socket.recv(&mut buffer, 0))
        .map_err(|source| SockDiagError::Receive { what, source })?;
    let answer = envelopes(&buffer).find(|it| it.sequence == SEQUENCE).map(|it| it.message);
    match answer {
        Some(Message::Socket(bytes)) => Ok(connection(parse(what, bytes)?)),
        Some(Message::Error(Err(number))) => {
            let source = std::io::Error::from(number);
            match source.kind() {
                std::io::ErrorKind::NotFound => Ok(None),
                _ => Err(SockDiagError::Refused { what, source }),
            }
        }
        Some(Message::Done(_) | Message::Error(Ok(())) | Message::Other) | None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, TcpStream};

    use super::*;
    use crate::host::sock_diag::Stage;

    #[test]
    fn a_connection_is_found_by_its_ends_before_and_after_it_was_accepted() {
        for (any, to) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let listener = TcpListener::bind((any, 0)).unwrap();
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect((to, server.port())).unwrap();
            let ends = || connection_between(server, client.local_addr().unwrap()).unwrap();
            assert_eq!(ends().unwrap().stage(), Stage::Queued);
            let accepted = listener.accept().unwrap();
            assert_eq!(ends().unwrap().stage(), Stage::Accepted);
            drop(accepted);
            assert!(ends().is_none_or(|it| it.stage() == Stage::Orphaned));
        }
    }

    #[test]
    fn an_ipv4_connection_to_a_dual_stack_listener_is_found_by_its_ipv4_addresses() {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let client =
            TcpStream::connect(("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
        let found = connection_between(client.peer_addr().unwrap(), client.local_addr().unwrap());
        assert_eq!(found.unwrap().unwrap().stage(), Stage::Queued);
    }

    #[test]
    fn a_listener_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = ([127, 0, 0, 1], 1).into();
        assert_eq!(connection_between(listener.local_addr().unwrap(), nobody).unwrap(), None);
    }
}
