//! Connections of our own that show whether a server accepts.

use std::{
    collections::BTreeSet,
    io,
    mem::MaybeUninit,
    net::{IpAddr, Shutdown, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use socket2::{Domain, Socket, Type};

use super::sock_diag::{self, SockDiagError, Stage};

/// One connection to each of some addresses of this host, all from one port, and each from the very address that it goes to.
///
/// # Kernel
///
/// A port that was bound by name is given to no `connect()` of anybody else (`__inet_hash_connect`), so that address and port
/// tell these connections from all others.
#[derive(Debug)]
pub struct Probe {
    port: u16,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    socket: Arc<Socket>,
    to: SocketAddr,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing has been sent: no way leads there, or something forbids it.
    Unsent,
    Connecting,
    /// It waits in the queue of a listener, or is half-open there.
    Waiting,
    /// The server has it, or had it.
    Accepted,
}

/// How far a probe has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Some connection was not accepted yet.
    Waiting,
    /// Some connection is not even made: nobody answers.
    Unanswered,
    /// All were accepted.
    Accepted,
    /// Some connection was reset after it was made: by the server that accepted it, or because its listener closed.
    Reset,
    /// Some connection was refused.
    Refused,
}

impl Probe {
    /// Takes a port for connections to these addresses. Nothing is sent yet. Addresses that this host does not have are left
    /// out: [`Self::reaches`] tells.
    ///
    /// # Errors
    ///
    /// When the system has no descriptors or ports left.
    pub fn to(addresses: &[SocketAddr]) -> io::Result<Self> {
        const ATTEMPTS: u32 = 5;
        for _attempt in 1..ATTEMPTS {
            match Self::from_one_port(addresses) {
                // Somebody has the port on one of the addresses.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                other => return other,
            }
        }
        Self::from_one_port(addresses)
    }

    fn from_one_port(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut probe = Self { port: 0, connections: Vec::new() };
        for to in addresses {
            let socket = match bound(to.ip(), probe.port) {
                Ok(socket) => socket,
                Err(error) if is_not_here(&error) => continue,
                Err(error) => return Err(error),
            };
            if probe.port == 0 {
                probe.port = socket
                    .local_addr()?
                    .as_socket()
                    .map(|it| it.port())
                    .ok_or_else(|| io::Error::other("a TCP socket without a port"))?;
            }
            // Only once it has the port: others of ours go to other ports of the same address, and share it.
            socket.set_reuse_address(true)?;
            let (to, socket) = (*to, Arc::new(socket));
            probe.connections.push(Connection { socket, to, progress: Progress::Unsent });
        }
        Ok(probe)
    }

    /// The port that all its connections come from.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The addresses that it connects to.
    pub fn reaches(&self) -> BTreeSet<SocketAddr> {
        self.connections.iter().map(|it| it.to).collect()
    }

    /// The sockets: each becomes readable when the server says something or closes.
    pub fn sockets(&self) -> impl Iterator<Item = Arc<Socket>> {
        self.connections.iter().map(|it| Arc::clone(&it.socket))
    }

    /// Connects, and waits for nothing. What fails shows in the next look.
    pub fn connect(&mut self) {
        for connection in &mut self.connections {
            connection.connect();
        }
    }

    /// Looks how far it has come.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn look(&mut self) -> Result<Look, SockDiagError> {
        let mut all = Look::Accepted;
        for connection in &mut self.connections {
            match connection.look(self.port)? {
                Look::Accepted => connection.progress = Progress::Accepted,
                end @ (Look::Reset | Look::Refused) => return Ok(end),
                waits @ (Look::Waiting | Look::Unanswered) => all = waits,
            }
        }
        Ok(all)
    }

    /// Where connections wait that were not accepted yet, if some were.
    pub fn waits_at(&self) -> BTreeSet<SocketAddr> {
        let accepted = |it: &&Connection| it.progress == Progress::Accepted;
        let (accepted, waiting): (Vec<_>, Vec<_>) = self.connections.iter().partition(accepted);
        if accepted.is_empty() { BTreeSet::new() } else { waiting.iter().map(|it| it.to).collect() }
    }

    /// Whether the server has closed its end of all of them. If it has not, dropping the probe resets them.
    pub fn is_over(&self) -> bool {
        let closed = |it: &Connection| match received(&it.socket) {
            Ok(received) => received == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.connections.iter().all(closed)
    }
}

impl Connection {
    fn connect(&mut self) {
        match self.socket.connect(&self.to.into()) {
            // Even if nobody listens there: that is an answer.
            Err(error) if !is_under_way(&error) => {
                tracing::debug!(%error, to = %self.to, "a probe is not connected");
            }
            Ok(()) | Err(_) => self.progress = Progress::Connecting,
        }
    }

    fn look(&mut self, port: u16) -> Result<Look, SockDiagError> {
        // What has no way may get one: an interface comes up.
        if self.progress == Progress::Unsent {
            self.connect();
        }
        if self.progress == Progress::Unsent {
            return Ok(Look::Unanswered);
        }
        if self.progress == Progress::Connecting {
            if !answers(&self.socket) {
                return Ok(Look::Unanswered);
            }
            match self.socket.take_error() {
                Ok(None) if self.socket.peer_addr().is_ok() => {}
                Ok(Some(error)) if error.kind() != io::ErrorKind::ConnectionRefused => {
                    return Ok(Look::Reset);
                }
                Ok(_) | Err(_) => return Ok(Look::Refused),
            }
            // What follows the handshake gets through `TCP_DEFER_ACCEPT`, and lets the server go as soon as it has accepted. It
            // fails only if there is no connection any more.
            if self.socket.shutdown(Shutdown::Write).is_err() {
                return Ok(Look::Reset);
            }
            self.progress = Progress::Waiting;
        }
        if self.progress == Progress::Accepted {
            return Ok(Look::Accepted);
        }
        match received(&self.socket) {
            Ok(_) => Ok(Look::Accepted),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(Look::Reset),
            Err(_) => {
                let ours = SocketAddr::new(self.to.ip(), port);
                let theirs = sock_diag::connection_between(self.to, ours)?;
                let accepted = theirs.is_some_and(|it| it.stage() != Stage::Queued);
                Ok(if accepted { Look::Accepted } else { Look::Waiting })
            }
        }
    }
}

/// A socket at this address. When it is closed, by us or by our end, nothing of the connection stays: not at the server either.
fn bound(address: IpAddr, port: u16) -> io::Result<Socket> {
    let at = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    if port != 0 {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

fn is_under_way(error: &io::Error) -> bool {
    let answers = [Errno::INPROGRESS, Errno::CONNREFUSED];
    Errno::from_io_error(error).is_some_and(|number| answers.contains(&number))
}

fn is_not_here(error: &io::Error) -> bool {
    let not_here = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|number| not_here.contains(&number))
}

/// Whether the handshake has ended, in whatever way.
fn answers(socket: &Socket) -> bool {
    let mut ready = [PollFd::new(socket, PollFlags::OUT)];
    matches!(poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
}

fn received(socket: &Socket) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::host::loopback;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn a_probe_waits_until_all_its_connections_were_accepted() {
        let (one, to_one) = listener();
        let (other, to_other) = listener();
        let mut probe = Probe::to(&[to_one, to_other]).unwrap();
        assert_eq!(probe.reaches(), [to_one, to_other].into());
        probe.connect();
        assert_eq!(probe.look().unwrap(), Look::Waiting);
        let (first, from) = one.accept().unwrap();
        assert_eq!((from.ip(), from.port()), (to_one.ip(), probe.port()));
        assert_eq!(probe.look().unwrap(), Look::Waiting);
        let second = other.accept().unwrap();
        assert_eq!(probe.look().unwrap(), Look::Accepted);
        assert!(!probe.is_over());
        drop((first, second));
        assert!(probe.is_over());
    }

    #[test]
    fn a_server_that_closes_at_once_has_accepted() {
        let (server, address) = listener();
        let mut probe = Probe::to(&[address]).unwrap();
        probe.connect();
        assert_eq!(probe.look().unwrap(), Look::Waiting);
        drop(server.accept().unwrap());
        assert_eq!(probe.look().unwrap(), Look::Accepted);
    }

    #[test]
    fn nobody_who_listens_refuses_and_a_listener_that_closes_resets() {
        let (server, address) = listener();
        let mut probe = Probe::to(&[address]).unwrap();
        probe.connect();
        assert_eq!(probe.look().unwrap(), Look::Waiting);
        drop(server);
        assert_eq!(probe.look().unwrap(), Look::Reset);
        let mut probe = Probe::to(&[address]).unwrap();
        probe.connect();
        assert_eq!(probe.look().unwrap(), Look::Refused);
    }

    /// As in a network namespace in which nobody has set the loopback interface up: the kernel says so at once (ENETUNREACH), and
    /// whether the server would accept is not known.
    #[test]
    fn where_no_way_leads_there_nobody_answers() {
        let alone = std::thread::spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("skipped: no network namespace can be made");
                return;
            }
            let server = TcpListener::bind("0.0.0.0:0").unwrap();
            let port = server.local_addr().unwrap().port();
            let mut probe = Probe::to(&[SocketAddr::from(([127, 0, 0, 1], port))]).unwrap();
            probe.connect();
            for _look in 0..2 {
                assert_eq!(probe.look().unwrap(), Look::Unanswered);
            }
            assert!(loopback::is_down());
        });
        alone.join().unwrap();
    }

    #[test]
    fn an_address_of_another_host_is_left_out() {
        let elsewhere = "192.0.2.1:80".parse().unwrap();
        let (_server, here) = listener();
        assert_eq!(Probe::to(&[elsewhere, here]).unwrap().reaches(), [here].into());
    }
}
