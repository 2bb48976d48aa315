//! TCP listeners, with Multipath TCP's pair of sockets told as the one listener it is.

use std::{io, net::IpAddr, os::fd::BorrowedFd};

use super::{
    SockDiagError, SocketCookie, SocketInode,
    dump::dump,
    request::{Ports, Protocol, Request},
    wire::{Family, RawSocket, StateSet},
};

/// One listening TCP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The socket that BPF programs see. For Multipath TCP that is the TCP subflow.
    pub cookie: SocketCookie,
    /// What the descriptors of its processes show.
    pub inode: SocketInode,
    /// The local address; unspecified for any.
    pub address: IpAddr,
    /// The local port.
    pub port: u16,
    /// Whether an IPv6 listener leaves IPv4 alone.
    pub v6only: bool,
    /// The effective user that made it.
    pub uid: u32,
    /// Connections that wait to be accepted.
    pub accept_queue: u32,
    /// How many may wait.
    pub backlog: u32,
    /// The interface it is bound to; 0 for any.
    pub interface: u32,
    /// Whether it is a Multipath TCP listener, which no socket map takes.
    pub multipath: bool,
    /// The value that the socket has in the map of tags; absent if it has none or none was asked
    /// for.
    pub tag: Option<Vec<u8>>,
}

/// All TCP listeners of the network namespace, IPv4 first.
///
/// # Kernel
///
/// A Multipath TCP listener is two sockets: an `mptcp` one, which has the descriptor, and a TCP one
/// below it, which has the accept queue. They are returned as one. A kernel without Multipath TCP
/// refuses to list any, which means none.
///
/// # Errors
///
/// When the kernel's tables cannot be read.
pub fn listeners() -> Result<Vec<Listener>, SockDiagError> {
    matching(Ports::All, None)
}

/// The same, with the value that each has in the map of tags (`BPF_MAP_TYPE_SK_STORAGE`).
///
/// # Errors
///
/// When the kernel's tables cannot be read, or the caller may not read the tags.
pub fn tagged_listeners(tags: BorrowedFd<'_>) -> Result<Vec<Listener>, SockDiagError> {
    matching(Ports::All, Some(tags))
}

/// The TCP listeners on one local port.
///
/// # Errors
///
/// When the kernel's tables cannot be read.
pub fn listeners_on(port: u16) -> Result<Vec<Listener>, SockDiagError> {
    matching(Ports::One(port), None)
}

/// The TCP listeners on these local ports. The kernel walks past all others, and tells of none of them: anybody may have
/// 100,000.
///
/// # Errors
///
/// When the kernel's tables cannot be read.
pub fn listeners_at(ports: &[u16]) -> Result<Vec<Listener>, SockDiagError> {
    let Some(span) = Ports::of(ports) else { return Ok(Vec::new()) };
    let mut found = matching(span, None)?;
    found.retain(|listener| ports.contains(&listener.port));
    Ok(found)
}

fn matching(ports: Ports, tags: Option<BorrowedFd<'_>>) -> Result<Vec<Listener>, SockDiagError> {
    let request = Request {
        what: "listeners",
        protocol: Protocol::Tcp,
        states: StateSet::LISTEN,
        ports,
        // Only with it does the kernel tell of the upper protocol (`inet_sk_diag_fill`).
        with_tcp_info: true,
        tags,
    };
    let sockets = dump(&request)?;
    let mut multipath = Vec::new();
    // Only a port that has a subflow can have a Multipath TCP listener: most questions end here.
    if sockets.iter().any(|socket| socket.multipath_subflow) {
        for family in Family::ALL {
            multipath.extend(multipath_listeners(&Request {
                protocol: Protocol::MultipathTcp(family),
                what: "multipath listeners",
                tags: None,
                ports: request.ports.clone(),
                ..request
            })?);
        }
    }
    let mut found = merge(sockets, multipath);
    found.sort_by_key(|listener| listener.address.is_ipv6());
    Ok(found)
}

fn multipath_listeners(request: &Request<'_>) -> Result<Vec<RawSocket>, SockDiagError> {
    match dump(request) {
        Err(SockDiagError::Refused { source, .. }) if means_unsupported(&source) => Ok(Vec::new()),
        answer => answer,
    }
}

/// What a kernel answers that has no module `mptcp_diag` (`ENOENT`), or knows no such protocol.
fn means_unsupported(error: &io::Error) -> bool {
    let unsupported = [
        rustix::io::Errno::NOENT,
        rustix::io::Errno::INVAL,
        rustix::io::Errno::PROTONOSUPPORT,
        rustix::io::Errno::OPNOTSUPP,
    ];
    rustix::io::Errno::from_io_error(error).is_some_and(|number| unsupported.contains(&number))
}

/// Gives each TCP subflow the inode of the `mptcp` socket on top of it.
///
/// Newer kernels copy the inode to the subflow; where they do not, equal address, port and
/// interface decide, each `mptcp` socket being used once, so that listeners which share a port do
/// not all get the first one's inode.
pub(super) fn merge(sockets: Vec<RawSocket>, mut multipath: Vec<RawSocket>) -> Vec<Listener> {
    let mut found = Vec::new();
    for socket in sockets {
        let mut inode = socket.inode;
        if socket.multipath_subflow {
            let same_place = |other: &RawSocket| {
                other.local == socket.local && other.interface == socket.interface
            };
            let owner = multipath
                .iter()
                .position(|other| same_place(other) && other.inode == socket.inode)
                .or_else(|| multipath.iter().position(same_place));
            if let Some(owner) = owner {
                inode = multipath.swap_remove(owner).inode;
            }
        }
        let (address, port) = socket.local;
        found.push(Listener {
            cookie: socket.cookie,
            inode,
            address,
            port,
            v6only: socket.v6only,
            uid: socket.uid,
            accept_queue: socket.receive_queue,
            backlog: socket.send_queue,
            interface: socket.interface,
            multipath: socket.multipath_subflow,
            tag: socket.tag,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    use rustix::net::sockopt::socket_cookie;
    use socket2::{Domain, Socket, Type};

    use super::*;

    /// The inode that the descriptor of `socket` shows.
    fn inode(socket: &impl std::os::fd::AsFd) -> SocketInode {
        SocketInode(rustix::fs::fstat(socket).unwrap().st_ino)
    }

    #[test]
    fn a_listener_is_found_with_its_cookie_inode_and_queue() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let found = listeners_on(address.port()).unwrap();
        let [listener] = found.as_slice() else { panic!("expected one listener, got {found:?}") };
        assert_eq!(listener.cookie, SocketCookie(socket_cookie(&socket).unwrap()));
        assert_eq!(listener.inode, inode(&socket));
        assert_eq!((listener.address, listener.port), (address.ip(), address.port()));
        assert_eq!(listener.uid, rustix::process::geteuid().as_raw());
        assert_eq!(listener.accept_queue, 1);
        assert!(listener.backlog >= 1);
        assert!(!listener.multipath);
        assert!(listeners().unwrap().contains(listener));
        let port = address.port();
        drop(socket);
        assert_eq!(listeners_on(port).unwrap(), Vec::new());
    }

    #[test]
    fn dual_stack_and_v6_only_listeners_are_told_apart() {
        for v6only in [false, true] {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_only_v6(v6only).unwrap();
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
            socket.listen(7).unwrap();
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            let found = listeners_on(port).unwrap();
            let [listener] = found.as_slice() else {
                panic!("expected one listener, got {found:?}")
            };
            assert_eq!(listener.v6only, v6only);
            assert_eq!(listener.address, IpAddr::from(Ipv6Addr::UNSPECIFIED));
            assert_eq!(listener.backlog, 7);
        }
    }

    /// Two Multipath TCP listeners that share a port; `None` where the kernel has no Multipath TCP.
    fn multipath_pair(domain: Domain, address: IpAddr) -> Option<[Socket; 2]> {
        let make = |port| {
            let socket =
                Socket::new(domain, Type::STREAM, Some(socket2::Protocol::from(262))).ok()?;
            socket.set_reuse_port(true).unwrap();
            socket.bind(&SocketAddr::from((address, port)).into()).unwrap();
            socket.listen(8).unwrap();
            Some(socket)
        };
        let first = make(0)?;
        let port = first.local_addr().unwrap().as_socket().unwrap().port();
        Some([first, make(port)?])
    }

    #[test]
    fn a_multipath_listener_is_one_entry_with_the_subflows_cookie_and_the_descriptors_inode() {
        for (domain, address) in [
            (Domain::IPV4, IpAddr::from([127, 0, 0, 1])),
            (Domain::IPV6, Ipv6Addr::LOCALHOST.into()),
        ] {
            let Some(pair) = multipath_pair(domain, address) else {
                eprintln!("skipped: the kernel has no Multipath TCP");
                return;
            };
            let port = pair[0].local_addr().unwrap().as_socket().unwrap().port();
            let found = listeners_on(port).unwrap();
            assert_eq!(found.len(), 2, "{found:?}");
            assert!(found.iter().all(|listener| listener.multipath && listener.address == address));
            for socket in &pair {
                let listener = found
                    .iter()
                    .find(|listener| listener.inode == inode(socket))
                    .expect("its inode");
                assert_ne!(
                    listener.cookie,
                    SocketCookie(socket_cookie(socket).unwrap()),
                    "that is the upper socket"
                );
            }
        }
    }
}
