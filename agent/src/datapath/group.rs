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

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::programs::{ProgramError, SkReuseport, SkReuseportError};
use rustix::process::Uid;
use socket2::{Domain, Socket, Type};

use super::{Datapath, DatapathError, error::program_error, programs::MIGRATE};

/// What all listeners of one reuseport group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Takes the group's program away; a group that has none is left as it is. Listeners that do not share their port are no
    /// group: they were not taken over yet, or have been released already.
    ///
    /// # Errors
    ///
    /// When the group cannot be joined, or the kernel refuses.
    pub fn detach_migrate(&self) -> Result<(), DatapathError> {
        let member = match self.join() {
            Err(DatapathError::Group { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse =>
            {
                return Ok(());
            }
            joined => joined?,
        };
        match SkReuseport::detach(member) {
            Err(ProgramError::SkReuseportError(SkReuseportError::SetsockoptError {
                io_error,
                ..
            })) if io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(program_error("detach", MIGRATE)),
        }
    }

    /// A socket in the group, for as long as it is held.
    fn join(&self) -> Result<OwnedFd, DatapathError> {
        self.new_member().map_err(|source| DatapathError::Group { address: self.address, source })
    }

    fn new_member(&self) -> io::Result<OwnedFd> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        rustix::fs::fchown(&socket, Some(Uid::from_raw(self.uid)), None)?;
        if self.address.is_ipv6() {
            socket.set_only_v6(self.v6only)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&self.address.into())?;
        socket.listen(1)?;
        Ok(socket.into())
    }
}
