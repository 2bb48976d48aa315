//! Flows and half-open requests.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::BorrowedFd,
    time::Duration,
};

use super::{
    SockDiagError, SocketCookie, SocketInode,
    dump::dump,
    request::{Ports, Protocol, Request},
    wire::{RawSocket, StateSet},
};

/// One TCP connection of this machine's side: a flow, or one that waits to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The socket.
    pub cookie: SocketCookie,
    /// What the descriptors of its processes show; absent if no process has one.
    pub inode: Option<SocketInode>,
    /// Our end, as the client knows it: the public port, wherever the listener is bound.
    pub local: SocketAddr,
    /// The client's end.
    pub remote: SocketAddr,
    /// The interface that the socket is bound to; 0 for any.
    pub interface: u32,
    /// How far it has come.
    pub state: TcpState,
    /// For how long no data went either way, counted from the socket's creation if none ever did.
    pub idle: Option<Duration>,
    /// The value that the socket has in the map of tags; absent if it has none or none was asked
    /// for.
    pub tag: Option<Vec<u8>>,
}

impl Connection {
    /// Whether nobody accepts it and its client has closed: what the client wanted, it does not wait for. One that only ended
    /// what it sends looks the same, but a server that works accepts it within this time.
    pub fn is_abandoned(&self) -> bool {
        self.stage() == Stage::Queued
            && self.state == TcpState::CloseWait
            && self.idle.is_some_and(|idle| idle >= PATIENCE)
    }

    /// Whether the connection still waits for a server, has one, or had one.
    pub fn stage(&self) -> Stage {
        match (self.inode, self.state) {
            (Some(_), _) => Stage::Accepted,
            // A queued connection can be closed only from the far side. One of these states was
            // reached from this side, by a process that closed its descriptor.
            (
                None,
                TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck,
            ) => Stage::Orphaned,
            (None, TcpState::Established | TcpState::SynSent | TcpState::CloseWait) => {
                Stage::Queued
            }
        }
    }
}

/// How long a connection that its client has closed may wait to be accepted before it is given up.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Who has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waits in a listener's accept queue, and is reset if the listener closes.
    Queued,
    /// A process has a descriptor of it.
    Accepted,
    /// The server has closed it, and the kernel sends the rest by itself. It outlives the process.
    Orphaned,
}

/// The states of TCP in which a connection is a full socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// Both ends may send.
    Established,
    /// We connect from this port.
    SynSent,
    /// We closed; the close is not confirmed.
    FinWait1,
    /// We closed; the client has not.
    FinWait2,
    /// The client closed; we have not.
    CloseWait,
    /// Both closed; ours is not confirmed.
    LastAck,
    /// Both closed at once.
    Closing,
}

impl TcpState {
    /// By the kernel's number (`include/net/tcp_states.h`).
    fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Established),
            2 => Some(Self::SynSent),
            4 => Some(Self::FinWait1),
            5 => Some(Self::FinWait2),
            8 => Some(Self::CloseWait),
            9 => Some(Self::LastAck),
            11 => Some(Self::Closing),
            _ => None,
        }
    }
}

impl std::fmt::Display for TcpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Established => "established",
            Self::SynSent => "syn-sent",
            Self::FinWait1 => "fin-wait-1",
            Self::FinWait2 => "fin-wait-2",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::Closing => "closing",
        })
    }
}

/// A connection request whose handshake is not finished.
///
/// It belongs to the listener that got its SYN, and is lost if that one closes first. No accept
/// queue shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HalfOpen {
    /// The request. The connection that it becomes keeps the cookie (`inet_csk_clone_lock`).
    pub cookie: SocketCookie,
    /// The client's end.
    pub remote: SocketAddr,
}

/// All connections whose local port is one of `ports`, but for half-open ones and those in `TIME_WAIT`,
/// with their tags if the map of tags (`BPF_MAP_TYPE_SK_STORAGE`) is given.
///
/// The kernel's table is walked without stopping the world: a connection that opens or closes
/// meanwhile may or may not be there, but none is there twice.
///
/// # Errors
///
/// When the kernel's tables cannot be read, or the caller may not read the tags.
pub fn connections(
    ports: &[u16],
    tags: Option<BorrowedFd<'_>>,
) -> Result<Vec<Connection>, SockDiagError> {
    let Some(span) = Ports::of(ports) else { return Ok(Vec::new()) };
    let request = Request {
        what: "connections",
        protocol: Protocol::Tcp,
        states: StateSet::CONNECTED,
        ports: span,
        with_tcp_info: true,
        tags,
    };
    let wanted: HashSet<_> = ports.iter().copied().collect();
    let sockets = dump_once(&request)?.filter(|it| wanted.contains(&it.local.1));
    Ok(sockets.filter_map(connection).collect())
}

/// All connections that have a tag, whatever their port.
///
/// # Errors
///
/// As [`connections`].
pub fn tagged_connections(tags: BorrowedFd<'_>) -> Result<Vec<Connection>, SockDiagError> {
    let request = Request {
        what: "tagged connections",
        protocol: Protocol::Tcp,
        states: StateSet::CONNECTED,
        ports: Ports::All,
        with_tcp_info: true,
        tags: Some(tags),
    };
    let sockets = dump_once(&request)?.filter(|it| it.tag.is_some());
    Ok(sockets.filter_map(connection).collect())
}

/// The half-open requests on these ports.
///
/// # Errors
///
/// When the kernel's tables cannot be read.
pub fn half_open(ports: &[u16]) -> Result<Vec<HalfOpen>, SockDiagError> {
    let Some(span) = Ports::of(ports) else { return Ok(Vec::new()) };
    let request = Request {
        what: "half-open requests",
        protocol: Protocol::Tcp,
        states: StateSet::SYN_RECV,
        ports: span,
        with_tcp_info: false,
        tags: None,
    };
    let wanted: HashSet<_> = ports.iter().copied().collect();
    let requests = dump_once(&request)?.filter(|it| wanted.contains(&it.local.1));
    let half_open = |socket: RawSocket| HalfOpen {
        cookie: socket.cookie,
        remote: socket_address(socket.remote, socket.interface),
    };
    Ok(requests.map(half_open).collect())
}

/// The sockets, each once: the walk resumes by position in a hash chain, so that a change in the chain can repeat a socket.
fn dump_once(request: &Request<'_>) -> Result<impl Iterator<Item = RawSocket>, SockDiagError> {
    let mut seen = HashSet::new();
    Ok(dump(request)?.into_iter().filter(move |it| seen.insert(it.cookie)))
}

/// Nothing for what is no full socket.
pub(super) fn connection(socket: RawSocket) -> Option<Connection> {
    if socket.timer == RawSocket::TIMER_TIME_WAIT {
        return None;
    }
    Some(Connection {
        cookie: socket.cookie,
        inode: (socket.inode != SocketInode(0)).then_some(socket.inode),
        local: socket_address(socket.local, socket.interface),
        remote: socket_address(socket.remote, socket.interface),
        interface: socket.interface,
        state: TcpState::from_number(socket.state)?,
        idle: socket.idle,
        tag: socket.tag,
    })
}

/// A link-local address means something only together with its interface.
fn socket_address((address, port): (IpAddr, u16), interface: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, interface).into()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(address, port),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{Ipv6Addr, Shutdown, TcpListener, TcpStream},
        os::fd::AsFd,
        process::{Child, Command, Stdio},
    };

    use rustix::net::sockopt::socket_cookie;

    use super::*;

    fn only_connection(port: u16) -> Connection {
        let mut found = connections(&[port], None).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn a_connection_is_seen_queued_then_accepted_then_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(connections(&[address.port()], None).unwrap(), Vec::new());

        let mut client = TcpStream::connect(address).unwrap();
        let queued = only_connection(address.port());
        assert_eq!((queued.stage(), queued.inode), (Stage::Queued, None));

        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        let accepted = only_connection(address.port());
        assert_eq!(accepted.stage(), Stage::Accepted);
        assert_eq!(accepted.cookie, queued.cookie);
        assert_eq!(accepted.cookie, SocketCookie(socket_cookie(&server).unwrap()));
        assert_eq!(accepted.inode, Some(SocketInode(rustix::fs::fstat(&server).unwrap().st_ino)));
        assert_eq!((accepted.local, accepted.remote), (address, client.local_addr().unwrap()));
        assert_eq!(accepted.state, TcpState::Established);
        assert!(accepted.idle.unwrap() < Duration::from_secs(5));
        assert_eq!(accepted.tag, None);

        client.shutdown(Shutdown::Write).unwrap();
        server.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(only_connection(address.port()).state, TcpState::CloseWait);
        drop(server);
        client.read_to_end(&mut Vec::new()).unwrap();
        // Whatever is left, the client's last acknowledgement may be on its way, but no process has
        // it.
        let left = connections(&[address.port()], None).unwrap();
        assert!(left.iter().all(|connection| connection.stage() == Stage::Orphaned), "{left:?}");
    }

    #[test]
    fn of_several_ports_those_between_them_are_left_out() {
        let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut ports: Vec<_> =
            listeners.iter().map(|it| it.local_addr().unwrap().port()).collect();
        let _clients: Vec<_> =
            ports.iter().map(|port| TcpStream::connect(("127.0.0.1", *port)).unwrap()).collect();
        ports.sort_unstable();
        let outer = [ports[2], ports[0]];
        let found = connections(&outer, None).unwrap();
        let mut local: Vec<_> = found.iter().map(|it| it.local.port()).collect();
        local.sort_unstable();
        assert_eq!(local, [ports[0], ports[2]]);
        assert_eq!(half_open(&outer).unwrap(), []);
        assert_eq!(connections(&[], None).unwrap(), []);
    }

    #[test]
    fn a_connection_that_only_this_side_closed_is_orphaned() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // More than the client's buffer takes: what is left to send keeps the closed connection a full socket.
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65536]).is_ok() {}
        drop(server);
        assert_eq!(only_connection(address.port()).stage(), Stage::Orphaned);
    }

    #[test]
    fn ipv4_clients_of_a_dual_stack_listener_have_ipv4_addresses() {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let connection = only_connection(port);
        assert_eq!(connection.remote, client.local_addr().unwrap());
        assert_eq!(connection.local, client.peer_addr().unwrap());
    }

    #[test]
    fn the_other_end_of_a_loopback_connection_is_not_listed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        let connection = only_connection(port);
        assert_eq!(connection.cookie, SocketCookie(socket_cookie(&client).unwrap()));
        assert_eq!(half_open(&[port]).unwrap(), Vec::new());
    }

    /// A listener that leaves each handshake unfinished until the client sends data
    /// (`TCP_DEFER_ACCEPT`, which no safe wrapper sets); nothing where there is no Python.
    fn deferring_listener() -> Option<(Child, u16)> {
        let script = "import socket\n\
                      listener = socket.create_server(('127.0.0.1', 0))\n\
                      listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)\n\
                      print(listener.getsockname()[1], flush=True)\n\
                      input()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .inspect_err(|error| eprintln!("skipped: cannot run python3: {error}"))
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Some((child, line.trim().parse().unwrap()))
    }

    #[test]
    fn a_half_open_request_is_no_connection_until_its_handshake_ends() {
        let Some((mut server, port)) = deferring_listener() else { return };
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let requests = half_open(&[port]).unwrap();
        let none_yet = connections(&[port], None).unwrap();
        client.write_all(b"x").unwrap();
        // On loopback the data has arrived when it has been sent.
        let (requests_after, established) = (half_open(&[port]).unwrap(), only_connection(port));
        drop(server.stdin.take());
        server.wait().unwrap();
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert_eq!(requests[0].remote, client.local_addr().unwrap());
        assert_eq!(none_yet, []);
        assert_eq!(requests_after, []);
        assert_eq!(established.stage(), Stage::Queued);
        assert_eq!(established.cookie, requests[0].cookie);
    }

    #[test]
    fn a_descriptor_that_is_no_map_is_refused_by_the_kernel() {
        let file = tempfile::tempfile().unwrap();
        let error = connections(&[1], Some(file.as_fd())).unwrap_err();
        assert!(matches!(error, SockDiagError::Refused { .. }), "{error:?}");
    }
}
