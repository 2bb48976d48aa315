//! Where a process can be reached besides TCP: sockets that say that it serves something.

use std::{collections::HashSet, io, path::Path};

use procfs::{
    FromBufReadSI as _, ProcResult, current_system_info,
    net::{UdpNetEntries, UdpNetEntry},
};

use super::{
    bounded,
    sock_diag::SocketInode,
    unix_sockets::{self, UnixSocket},
};

/// Sockets of our network namespace that wait for whoever comes: UDP without a peer, and Unix sockets with an address.
///
/// # Errors
///
/// When the kernel's tables cannot be read.
pub fn doors() -> io::Result<HashSet<SocketInode>> {
    let unix = unix_sockets::table(Path::new("/proc/thread-self/net/unix"))?;
    let mut doors: HashSet<_> =
        unix_sockets::sockets(&unix).filter(is_open).map(|it| it.inode).collect();
    doors.extend(waiting(udp("udp")?));
    // A machine without IPv6 has no such table.
    match udp("udp6") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        sockets => doors.extend(waiting(sockets?)),
    }
    Ok(doors)
}

fn udp(table: &str) -> io::Result<Vec<UdpNetEntry>> {
    /// Half a million sockets.
    const MOST: u64 = 64 << 20;
    let text = bounded::read(&Path::new("/proc/thread-self/net").join(table), MOST)?;
    entries(&text).map_err(|error| io::Error::other(error.to_string()))
}

pub(super) fn entries(table: &[u8]) -> ProcResult<Vec<UdpNetEntry>> {
    UdpNetEntries::from_buf_read(table, current_system_info()).map(|entries| entries.0)
}

fn waiting(sockets: Vec<UdpNetEntry>) -> impl Iterator<Item = SocketInode> {
    let waits = |it: &UdpNetEntry| it.local_address.port() != 0 && it.remote_address.port() == 0;
    sockets.into_iter().filter(waits).map(|it| SocketInode(it.inode))
}

/// One that has an address and no peer listens, or takes datagrams; one that was accepted has the listener's address.
const fn is_open(socket: &UnixSocket<'_>) -> bool {
    socket.address.is_some() && socket.is_unconnected
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::{
            fd::AsRawFd,
            linux::net::SocketAddrExt as _,
            unix::net::{SocketAddr, UnixListener, UnixStream},
        },
    };

    use super::*;

    fn inode(socket: &impl AsRawFd) -> SocketInode {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let text = link.to_string_lossy().into_owned();
        SocketInode(text.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap())
    }

    /// The kernel shows the address as it is, and any user may have a socket like that.
    #[test]
    fn an_address_that_is_no_text_hides_nobody() {
        let address = SocketAddr::from_abstract_name(format!("\u{fffd}{}", std::process::id()));
        let name = [b"\xff ".as_slice(), &std::process::id().to_ne_bytes()].concat();
        let odd = SocketAddr::from_abstract_name(name).unwrap();
        let _odd = UnixListener::bind_addr(&odd).unwrap();
        let listener = UnixListener::bind_addr(&address.unwrap()).unwrap();
        assert!(doors().unwrap().contains(&inode(&listener)));
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
