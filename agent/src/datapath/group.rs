//! Has connections moved whose listener closes before they were accepted.
//!
//! Listeners that share a port are a reuseport group, and the kernel asks the group's program where such connections go. A
//! program is given to a group through a socket in it. That socket is one of our own, which joins the group for a moment:
//! the alternative, a duplicate of a server's listener (`pidfd_getfd`), needs ptrace rights and would keep a dead server's
//! listener open for as long as we hang.
//!
//! # Kernel
//!
//! A socket joins at `listen()` if address, port, IPv6 scope and user are those of a listener there with `SO_REUSEPORT`
//! (`inet_reuseport_add_sock`); its user is whoever owns its inode (`sockfs_setattr`). A group, and with it the program,
//! lives for as long as one of its sockets does (`reuseport_detach_sock`). What our socket might be given meanwhile by the
//! kernel's own lookup moves on like any other when it is closed.
//!
//! Connections count in the bind conflict too, and one that was accepted before its listener shared the port conflicts with
//! everybody. Our socket binds by force (`TCP_REPAIR`: `SK_FORCE_REUSE`), and leaves the kernel the memory of a port that
//! sockets of this user share on this address (`inet_csk_update_fastreuse`): whoever fits it is let in without a look at the
//! others (`sk_reuseport_match`). The memory is of one address, and lasts until a bind that does not share.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::programs::{ProgramError, SkReuseport, SkReuseportError};
use nix::sys::socket::{setsockopt, sockopt::TcpRepair};
use rustix::process::Uid;
use socket2::{Domain, Socket, Type};

use super::{Datapath, DatapathError, error::program_error, programs::MIGRATE};

/// What all listeners of one reuseport group have in common.
///
/// In order by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// What they are bound to.
    pub address: SocketAddr,
    /// Whether they leave IPv4 alone.
    pub v6only: bool,
    /// Whose they are.
    pub uid: u32,
}

impl Datapath {
    /// Has `migrate` asked where connections go whose listener in this group closes.
    ///
    /// A program that the server itself had given to the group is replaced.
    ///
    /// # Errors
    ///
    /// When the group cannot be joined, or the kernel refuses the program.
    pub fn attach_migrate(&mut self, group: &Group) -> Result<(), DatapathError> {
        let member = group.join()?;
        self.kernel.attach_migrate(member.as_fd())
    }
}

impl Group {
    /// Takes the group's program away; a group that has none is left as it is.
    ///
    /// # Errors
    ///
    /// When the group cannot be joined, or the kernel refuses.
    pub fn detach_migrate(&self) -> Result<(), DatapathError> {
        match SkReuseport::detach(self.join()?) {
            Err(ProgramError::SkReuseportError(SkReuseportError::SetsockoptError {
                io_error,
                ..
            })) if io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(program_error("detach", MIGRATE)),
        }
    }

    /// Whether a socket that shares its port may be bound beside the group's.
    ///
    /// # Errors
    ///
    /// When it cannot be tried out.
    pub fn admits_another(&self) -> Result<bool, DatapathError> {
        match self.new_socket().and_then(|socket| socket.bind(&self.address.into())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// A socket that has the group's address and does not listen, for as long as it is held. Only sockets of the group's user
    /// that share their port may be bound there meanwhile.
    ///
    /// By force only where somebody is there: the first socket of a port that binds by force leaves the kernel the memory that
    /// everybody may, with `SO_REUSEADDR` (`fastreuse`).
    ///
    /// # Errors
    ///
    /// When it cannot be bound.
    pub fn hold(&self) -> Result<OwnedFd, DatapathError> {
        let hold = || {
            let socket = self.new_socket()?;
            socket.set_reuse_address(false)?;
            match socket.bind(&self.address.into()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.bound_by_force(),
                bound => bound.map(|()| socket),
            }
        };
        hold().map(Into::into).map_err(|source| self.failed(source))
    }

    /// Has the kernel look at whoever is bound there when the next one comes, and not at what it remembers of the users that
    /// have shared the port (`fastreuseport`): none of them may be there any more.
    ///
    /// # Errors
    ///
    /// When no socket can be bound there.
    pub fn forget_sharing(&self) -> Result<(), DatapathError> {
        let forget = || {
            let socket = self.new_socket()?;
            socket.set_reuse_port(false)?;
            bind_by_force(&socket, self.address)
        };
        forget().map_err(|source| self.failed(source))
    }

    /// A socket in the group, for as long as it is held. Whoever asks for it knows that the group's listeners share their port:
    /// beside others this socket would be one more listener, which accepts nothing.
    fn join(&self) -> Result<OwnedFd, DatapathError> {
        self.new_member().map_err(|source| self.failed(source))
    }

    const fn failed(&self, source: io::Error) -> DatapathError {
        DatapathError::Group { address: self.address, source }
    }

    fn new_member(&self) -> io::Result<OwnedFd> {
        let socket = self.bound_by_force()?;
        socket.listen(1)?;
        Ok(socket.into())
    }

    fn bound_by_force(&self) -> io::Result<Socket> {
        let socket = self.new_socket()?;
        bind_by_force(&socket, self.address)?;
        Ok(socket)
    }

    fn new_socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        rustix::fs::fchown(&socket, Some(Uid::from_raw(self.uid)), None)?;
        if self.address.is_ipv6() {
            socket.set_only_v6(self.v6only)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        Ok(socket)
    }
}

fn bind_by_force(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    setsockopt(socket, TcpRepair, &REPAIR_ON)?;
    socket.bind(&address.into())?;
    setsockopt(socket, TcpRepair, &REPAIR_OFF)?;
    Ok(())
}

/// `TCP_REPAIR_ON`
const REPAIR_ON: u32 = 1;
/// `TCP_REPAIR_OFF_NO_WP`: without a probe of the window, which a socket without a peer has not.
const REPAIR_OFF: u32 = -1_i32 as u32;
