//! Where a process can be reached besides TCP: sockets that say that it serves something.

use std::{collections::HashSet, io};

use procfs::{
    ProcError,
    net::{UdpNetEntry, UnixNetEntry, UnixState},
};

use super::sock_diag::SocketInode;

/// Sockets of our network namespace that wait for whoever comes: UDP without a peer, and Unix sockets with an address.
///
/// # Errors
///
/// When the kernel's tables cannot be read.
pub fn doors() -> io::Result<HashSet<SocketInode>> {
    let failed = |error: ProcError| io::Error::other(error.to_string());
    let unix = procfs::net::unix().map_err(failed)?;
    let mut doors: HashSet<_> =
        unix.iter().filter(|it| is_open(it)).map(|it| SocketInode(it.inode)).collect();
    let udp = procfs::net::udp().map_err(failed)?;
    // A machine without IPv6 has no such table.
    let udp6 = procfs::net::udp6().unwrap_or_default();
    let waits = |it: &&UdpNetEntry| it.local_address.port() != 0 && it.remote_address.port() == 0;
    doors.extend(udp.iter().chain(&udp6).filter(waits).map(|it| SocketInode(it.inode)));
    Ok(doors)
}

/// One that has an address and no peer listens, or takes datagrams; one that was accepted has the listener's address.
fn is_open(socket: &UnixNetEntry) -> bool {
    socket.path.is_some() && socket.state == UnixState::UNCONNECTED
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::{
            fd::AsRawFd,
            unix::net::{UnixListener, UnixStream},
        },
    };

    use super::*;

    fn inode(socket: &impl AsRawFd) -> SocketInode {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let text = link.to_string_lossy().into_owned();
        SocketInode(text.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap())
    }

    #[test]
    fn what_waits_for_whoever_comes_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
        asker.connect(server.local_addr().unwrap()).unwrap();
        let doors = doors().unwrap();
        assert!(doors.contains(&inode(&listener)) && doors.contains(&inode(&server)));
        for socket in [inode(&client), inode(&accepted), inode(&asker)] {
            assert!(!doors.contains(&socket), "{socket:?}");
        }
    }
}
