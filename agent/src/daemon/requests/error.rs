//! Why a request is refused.

use std::net::SocketAddr;

use agent_api::{Problem, ProblemKind};
use agent_terms::{Endpoint, GenerationNumber, LocalAddress, Release, ServiceName};

use crate::{
    daemon::{
        identify::error::IdentifyError, launch::error::NotLaunched, state::state_share::TooMuch,
        world_error::WorldError,
    },
    host::{cgroup::CgroupError, process::Pid},
};

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum RequestError {
    /// The world could not be looked at or changed.
    #[error(transparent)]
    World(WorldError),
    /// A detach that was begun did not come to its end.
    #[error(transparent)]
    HalfDone(WorldError),
    /// A server is not found, or not taken charge of.
    #[error(transparent)]
    Server(#[from] IdentifyError),
    /// A next generation is not launched.
    #[error(transparent)]
    Launch(#[from] NotLaunched),
    /// A server is in no control group that its successors could be in.
    #[error(transparent)]
    Group(CgroupError),
    /// More would have to be remembered of the service than may be.
    #[error(transparent)]
    Remembered(#[from] TooMuch),
    /// The answer cannot be put together.
    #[error(transparent)]
    Answer(#[from] Problem),
    /// No service has this port.
    #[error("no service is attached to port {port}")]
    NoSuchPort {
        /// Which.
        port: u16,
        /// Those that there are.
        services: Vec<ServiceName>,
    },
    /// No service has this name.
    #[error("there is no service `{name}`")]
    NoSuchName {
        /// Which.
        name: String,
        /// Those that there are.
        services: Vec<ServiceName>,
    },
    /// Several services have the port, at different addresses.
    #[error("several services have port {port}")]
    Ambiguous {
        /// Which.
        port: u16,
    },
    /// What is to be attached is a service of another name.
    #[error("these ports are of service `{service}` already, so that there is no `{name}`")]
    OtherName {
        /// Its name.
        service: ServiceName,
        /// The name that was asked for.
        name: ServiceName,
    },
    /// A service has a part of what is to be attached.
    #[error("service `{service}` has some of these ports already, but not {port}")]
    OtherPorts {
        /// Which.
        service: ServiceName,
        /// The first port that it has not.
        port: u16,
    },
    /// A service has what is to be attached, and another server.
    #[error("these ports are of service `{service}`, which process {pid} is not of")]
    OtherServer {
        /// Which.
        service: ServiceName,
        /// The process that was named.
        pid: i32,
    },
    /// Another service has the name.
    #[error("a service `{name}` exists already")]
    NameTaken {
        /// Which.
        name: ServiceName,
    },
    /// No number is left for a service.
    #[error("all {} services are taken", agent_ebpf::MAX_SERVICES - 1)]
    Full,
    /// A candidate has listeners that nobody would steer past.
    #[error("generation {generation} is being made ready")]
    MadeReady {
        /// Which.
        generation: GenerationNumber,
    },
    /// Another generation than the primary has flows, or will have.
    #[error(
        "generation {generation} still lives, with {open} open flows: without steering the kernel would give it new connections, \
         which it would cut when it ends"
    )]
    StillLives {
        /// Which.
        generation: GenerationNumber,
        /// How many.
        open: u64,
        /// For how long.
        until: Until,
        /// A process of it, and the one that keeps it from ending.
        traced: Option<(Pid, Pid)>,
    },
    /// The primary is not bound to the public port.
    #[error(
        "generation {generation} listens on {}, and only steering leads there: clients would be refused",
        listed(places)
    )]
    SteeringAlone {
        /// Which.
        generation: GenerationNumber,
        /// Where it listens.
        places: Vec<SocketAddr>,
    },
    /// The kernel would give others a part of the connections.
    #[error(
        "others listen on the port too, and without steering the kernel would give them connections: {}",
        strays(processes.as_ref(), *hidden)
    )]
    Strays {
        /// Their processes as people know them, as many as fit into a message.
        processes: Option<String>,
        /// How many more listeners nobody is seen to hold.
        hidden: usize,
    },
    /// A step of a detach failed.
    #[error("`{service}` is half detached, because a step failed")]
    HalfDetached {
        /// Of which service.
        service: ServiceName,
    },
    /// Another generation serves than the one that was expected to.
    #[error("generation {primary} of `{service}` takes new connections, not generation {expected}")]
    OtherPrimary {
        /// Of which service.
        service: ServiceName,
        /// The one that does.
        primary: GenerationNumber,
        /// The one that was expected to.
        expected: GenerationNumber,
    },
    /// No generation serves, and one was expected to.
    #[error("no generation of `{service}` is primary")]
    NoPrimary {
        /// Of which service.
        service: ServiceName,
    },
    /// Something else would be taken back than was expected.
    #[error(
        "generation {generation} of `{service}` {}, not release {expected}: nothing was taken back",
        match release {
            Some(release) => format!("is release {release}"),
            None => "was brought without a release".to_owned(),
        }
    )]
    OtherRelease {
        /// Of which service.
        service: ServiceName,
        /// Its newest generation.
        generation: GenerationNumber,
        /// What that is.
        release: Option<Release>,
        /// What it was expected to be.
        expected: Release,
    },
    /// A generation to go back to would lose what it gets.
    #[error(
        "cannot put generation {generation} back: nothing has changed: it listens on nothing just now"
    )]
    Deaf {
        /// Which.
        generation: GenerationNumber,
    },
    /// A generation that was gone back to does.
    #[error(
        "cannot put generation {generation} back: it was put back, and has just closed its listeners"
    )]
    DeafSince {
        /// Which.
        generation: GenerationNumber,
    },
    /// A generation to go back to would accept nothing.
    #[error(
        "cannot put generation {generation} back: nothing has changed: its processes are stopped (SIGSTOP), and would answer nobody"
    )]
    Stopped {
        /// Which.
        generation: GenerationNumber,
        /// Its processes.
        pids: Vec<Pid>,
    },
    /// The kernel has not taken a switch yet.
    #[error("{} is to get the new connections, but {} still does", or_nobody(*meant), or_nobody(*steering))]
    Unswitched {
        /// Where to.
        meant: Option<u32>,
        /// Where they go instead.
        steering: Option<u32>,
        /// What people were told of that.
        trouble: Option<String>,
    },
    /// What was named as the next generation is one.
    #[error("that server is generation {generation} of `{service}` already")]
    Known {
        /// Which.
        generation: GenerationNumber,
        /// Of which service.
        service: ServiceName,
    },
    /// Nobody can steer to the new server.
    #[error(
        "that server listens with Multipath TCP, and the kernel lets nobody steer to such a listener"
    )]
    Multipath,
    /// Both have several ports.
    #[error("which of the ports {ports:?} stands for which of the service's ports {public:?}?")]
    WhichPort {
        /// Those of the new server.
        ports: Vec<u16>,
        /// Those of the service.
        public: Vec<u16>,
    },
    /// The new server does not serve all that the service does.
    #[error("that server listens on {}, which does not stand for {missing}", listed_pairs(places))]
    Uncovered {
        /// Where it listens.
        places: Vec<(LocalAddress, u16)>,
        /// What it does not serve.
        missing: Endpoint,
    },
}

/// For how long a generation lives on.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) enum Until {
    /// Until the new one has proved itself.
    Settled,
    /// As long as it was asked to be kept.
    Kept,
    /// Until its flows are gone.
    Drained,
}

impl<E> From<E> for RequestError
where
    WorldError: From<E>,
{
    fn from(error: E) -> Self {
        Self::World(error.into())
    }
}

impl RequestError {
    /// What kind of failure it is. What comes from elsewhere says that itself.
    pub(in crate::daemon) const fn kind(&self) -> ProblemKind {
        match self {
            Self::World(_)
            | Self::HalfDone(_)
            | Self::Server(_)
            | Self::Launch(_)
            | Self::Group(_)
            | Self::Answer(_)
            | Self::Full
            | Self::Unswitched { .. } => ProblemKind::Failed,
            Self::NoSuchPort { .. } | Self::NoSuchName { .. } => ProblemKind::NotFound,
            Self::Ambiguous { .. } => ProblemKind::Usage,
            Self::OtherName { .. }
            | Self::OtherPorts { .. }
            | Self::OtherServer { .. }
            | Self::NameTaken { .. }
            | Self::MadeReady { .. }
            | Self::StillLives { .. }
            | Self::Strays { .. }
            | Self::HalfDetached { .. }
            | Self::OtherPrimary { .. }
            | Self::NoPrimary { .. }
            | Self::OtherRelease { .. } => ProblemKind::Locked,
            Self::Remembered(_)
            | Self::SteeringAlone { .. }
            | Self::Deaf { .. }
            | Self::DeafSince { .. }
            | Self::Stopped { .. }
            | Self::Known { .. }
            | Self::Multipath
            | Self::WhichPort { .. }
            | Self::Uncovered { .. } => ProblemKind::Preflight,
        }
    }
}

/// The second may be listeners whose descriptor is in a message that nobody has received.
fn strays(processes: Option<&String>, hidden: usize) -> String {
    let hidden = (hidden > 0)
        .then(|| format!("{hidden} of them held by nobody who can be seen (`ss -ltnp`)"));
    processes.cloned().into_iter().chain(hidden).collect::<Vec<_>>().join(", ")
}

fn or_nobody(generation: Option<u32>) -> String {
    generation.map_or("nobody".to_owned(), |it| format!("generation {it}"))
}

pub(super) fn listed(all: &[impl ToString]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn listed_pairs(places: &[(LocalAddress, u16)]) -> String {
    listed(&places.iter().map(|(address, port)| format!("{address}:{port}")).collect::<Vec<_>>())
}
