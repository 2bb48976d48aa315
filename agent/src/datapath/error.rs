//! What can go wrong between us and the kernel.

use std::{
    io,
    path::{Path, PathBuf},
};

use agent_ebpf::{MAX_ENDPOINTS, MAX_LISTENERS, MAX_SERVICES, SCHEMA};
use aya::{maps::MapError, programs::ProgramError};

/// A failure of the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// Pins of another version of the layouts.
    #[error("`{}` holds the pins of schema version {found}, this agent knows version {known}", .path.display())]
    OtherSchema {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What we know.
        known: u32,
    },
    /// The directory for pins is not below a BPF file system.
    #[error("`{}` is not on a BPF file system; mount one: `mount -t bpf bpf /sys/fs/bpf`", .0.display())]
    NoBpfFileSystem(PathBuf),
    /// An operation on a pin or on its directory.
    #[error("{operation} `{}`", .path.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel's own type information, without which tracing programs cannot be attached.
    #[error("read the kernel's type information (/sys/kernel/btf/vmlinux)")]
    KernelTypes(#[source] aya::BtfError),
    /// The places of the fields that the programs read.
    #[error(
        "find our way in the kernel's structures by its type information (/sys/kernel/btf/vmlinux)"
    )]
    KernelLayout(#[source] io::Error),
    /// Creating the maps.
    #[error("load the kernel programs' object")]
    Object(#[source] Box<aya::EbpfError>),
    /// Loading, attaching or pinning one program.
    #[error("{operation} the program `{program}`")]
    Program {
        /// What was tried.
        operation: &'static str,
        /// On which program.
        program: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading or writing a map.
    #[error("{operation} the map `{map}`")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// On which map.
        map: &'static str,
        /// Why it failed.
        #[source]
        source: Box<MapError>,
    },
    /// No room for more listeners.
    #[error("the socket map has no room for {wanted} more listeners (it holds {})", MAX_LISTENERS)]
    SocketMapFull {
        /// How many were to be added.
        wanted: usize,
    },
    /// One service would have so many listeners that others found no room.
    #[error(
        "the service would have {wanted} listeners in all its generations, and may have {share}: half of what other services leave of {}",
        MAX_LISTENERS
    )]
    ShareFull {
        /// How many it would have.
        wanted: usize,
        /// How many it may have.
        share: usize,
    },
    /// Becoming a member of a reuseport group for a moment.
    #[error("join the listeners on {address}")]
    Group {
        /// What they are bound to.
        address: std::net::SocketAddr,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// No room for one more element.
    #[error("the map `{map}` is full (it holds {})", limit_of(.map))]
    MapFull {
        /// Which map.
        map: &'static str,
    },
    /// Running the socket iterator.
    #[error("walk the sockets of this network namespace")]
    Walk(#[source] io::Error),
    /// A program could not do what it was asked to.
    #[error("take over the connection from {remote}")]
    Flow {
        /// The client.
        remote: std::net::SocketAddr,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What is said of a kernel that must not be asked to.
    #[error(
        "this kernel would hang for ever: its walk of sockets has a lock that an update of a socket map takes again (mended in Linux 6.5 and 6.1.42)"
    )]
    Deadlock,
    /// A listener that was accepted as a connection before. In a socket map it would accept sockets that nobody can close.
    #[error(
        "a listener of the server was a connection before (cookie {cookie}): what it accepts could never be closed if new connections were steered to it"
    )]
    WasConnection {
        /// The socket.
        cookie: u64,
    },
    /// The iterator could not do what it was asked to.
    #[error("take over the socket with cookie {cookie}")]
    Socket {
        /// The socket.
        cookie: u64,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Gives a map error its operation and object.
pub(super) trait Named<T> {
    fn named(self, operation: &'static str, map: &'static str) -> Result<T, DatapathError>;
}

impl<T> Named<T> for Result<T, MapError> {
    fn named(self, operation: &'static str, map: &'static str) -> Result<T, DatapathError> {
        self.map_err(|source| match source {
            MapError::SyscallError(ref error) if is_full(&error.io_error) => {
                DatapathError::MapFull { map }
            }
            source => DatapathError::Map { operation, map, source: Box::new(source) },
        })
    }
}

/// What the kernel answers to an insertion for which a hash map has no element left.
fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::TOOBIG.raw_os_error())
}

/// How many elements the map holds, as the programs declare it.
fn limit_of(map: &str) -> u32 {
    match map {
        "ENDPOINTS" => MAX_ENDPOINTS,
        "SERVICES" => MAX_SERVICES,
        _ => MAX_LISTENERS,
    }
}

impl DatapathError {
    pub(super) fn other_schema(path: &Path, found: String) -> Self {
        Self::OtherSchema { path: path.to_owned(), found, known: SCHEMA }
    }

    /// Whether trying again is in vain as long as nothing else goes.
    pub const fn is_lack_of_room(&self) -> bool {
        matches!(self, Self::SocketMapFull { .. } | Self::ShareFull { .. } | Self::MapFull { .. })
    }

    /// Whether it is about a listener that must not be steered to.
    pub const fn is_about_unfit_socket(&self) -> bool {
        matches!(self, Self::WasConnection { .. })
    }

    /// Whether it is about a socket that was closed meanwhile.
    pub fn is_about_closed_socket(&self) -> bool {
        matches!(self, Self::Socket { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What the verifier has against a program, without its walk through it.
#[derive(Debug, thiserror::Error)]
#[error("the verifier says: {said}")]
struct Refused {
    said: String,
    #[source]
    source: io::Error,
}

/// Of a program that was to be loaded. The verifier's log can be longer than anybody reads.
pub(super) fn load_error(program: &'static str, error: ProgramError) -> DatapathError {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return program_error("load", program)(error);
    };
    tracing::debug!(program, %verifier_log, "refused");
    match verdict(&verifier_log.to_string()) {
        Some(said) => {
            program_error("load", program)(Refused { said: said.to_owned(), source: io_error })
        }
        None => program_error("load", program)(io_error),
    }
}

/// The last line that is about the program, and not about what it cost to look at it.
fn verdict(log: &str) -> Option<&str> {
    const COSTS: [&str; 3] = ["processed", "stack depth", "verification time"];
    log.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !COSTS.iter().any(|cost| line.starts_with(cost)))
}

/// Gives a program's error its operation and object.
pub(super) fn program_error<E>(
    operation: &'static str,
    program: &'static str,
) -> impl FnOnce(E) -> DatapathError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| DatapathError::Program { operation, program, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_is_quoted_with_its_reason() {
        let log = "0: (85) call bpf_get_current_pid_tgid#14\nunknown func bpf_get_current_pid_tgid#14\n\
                   verification time 61 usec\nstack depth 112\nprocessed 9 insns (limit 1000000)\n\n";
        assert_eq!(verdict(log), Some("unknown func bpf_get_current_pid_tgid#14"));
        assert_eq!(verdict("processed 0 insns\n"), None);
    }
}
