//! Why a server is not found, or not taken charge of.

use std::{net::IpAddr, path::PathBuf};

use agent_api::ProblemKind;
use agent_terms::{Endpoint, GenerationNumber, LocalAddress, ServiceName, ServiceNameError};

use super::{also::Restarter, own_program::OWN_PROGRAM, who::MOST_COMPARED};
use crate::{
    daemon::world_error::WorldError,
    host::{
        process::{Pid, ProcessError},
        servers::Obstacle,
    },
};

/// Why a server is not found, or not taken charge of. Processes are in it as people know them: nobody can ask those that are gone,
/// and some keep whoever asks waiting.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum IdentifyError {
    /// Processes or sockets could not be looked at.
    #[error(transparent)]
    World(WorldError),
    /// The same of the process that was named.
    #[error(transparent)]
    Unseen(ProcessError),
    /// No name comes of a program's.
    #[error(transparent)]
    Name(#[from] ServiceNameError),
    /// A port without a listener.
    #[error("nothing listens on port {port}{}", address.map(|it| format!(" of {it}")).unwrap_or_default())]
    NothingListens {
        /// Which.
        port: u16,
        /// Of which address.
        address: Option<IpAddr>,
        /// The listeners that there are, on ports close to that one.
        near: Vec<(LocalAddress, u16)>,
    },
    /// The port of a new version.
    #[error("nothing listens on port {port}")]
    NothingNewListens {
        /// Which.
        port: u16,
    },
    /// Clients of other interfaces would be steered to it.
    #[error(
        "the listener on port {port} is bound to one network interface, which steering cannot honour"
    )]
    BoundToInterface {
        /// Its port.
        port: u16,
    },
    /// A server with a listener of our network namespace lives in another one.
    #[error("process {process} holds the listener but lives in another network namespace")]
    LivesElsewhere {
        /// Its first process.
        process: String,
    },
    /// The process that was named lives in another network namespace.
    #[error("process {pid} is in another network namespace than this agent")]
    NamedElsewhere {
        /// Its number.
        pid: i32,
    },
    /// The process that was named is not there.
    #[error("there is no process {pid}")]
    NoProcess {
        /// Its number.
        pid: i32,
        /// The processes of which one may be meant.
        servers: Vec<String>,
    },
    /// The process that was named does not listen.
    #[error("process {pid} is no server: neither it nor a child of it has a TCP listener")]
    NoServer {
        /// Its number.
        pid: i32,
    },
    /// Nobody knows whether the process that was named listens.
    #[error(
        "process {pid} is not seen to have a TCP listener, nor is a child of it, and {refused} of them do not let the agent look"
    )]
    NotSeenToListen {
        /// Its number.
        pid: i32,
        /// How many.
        refused: usize,
    },
    /// The process that was named does not listen there.
    #[error(
        "process {pid} does not hold a listener on port {}, nor is it the master of one server that does",
        listed(ports)
    )]
    HoldsNothing {
        /// Its number.
        pid: i32,
        /// Where.
        ports: Vec<u16>,
        /// The processes that do.
        servers: Vec<String>,
    },
    /// Listeners without a process.
    #[error("no process is seen to hold the listener on port {}", listed(ports))]
    NobodyHolds {
        /// Their ports.
        ports: Vec<u16>,
        /// So many processes could not be looked at.
        refused: usize,
        /// Whether we are in the PID namespace of the machine.
        sees_all: bool,
    },
    /// Whoever held the listeners does not any more.
    #[error(
        "the server has just ended, or its first thread has ended before the others (`pthread_exit`)"
    )]
    JustEnded,
    /// Something speaks against the only server that there is, or that was named.
    #[error("{}", against(process, ports, *obstacle))]
    Obstacle {
        /// Its first process.
        pid: Pid,
        /// The same as people know it.
        process: String,
        /// Its ports.
        ports: Vec<u16>,
        /// What does.
        obstacle: Obstacle,
    },
    /// Processes share a listener, and one of them is the server.
    #[error(
        "it is not certain which of the processes that hold the listener on port {} is the server: {}",
        listed(ports),
        servers.join("; ")
    )]
    Doubt {
        /// Their ports.
        ports: Vec<u16>,
        /// Who they are.
        servers: Vec<String>,
        /// The one that shows that it accepts.
        likely: Option<Pid>,
    },
    /// Servers share a port.
    #[error("{} unrelated servers hold the port: {}", servers.len(), servers.join("; "))]
    Several {
        /// Who they are.
        servers: Vec<String>,
    },
    /// More than can be compared.
    #[error(
        "{processes} processes that were executed each by itself hold the listener on port {}, which are too many to tell which is \
         the server (at most {MOST_COMPARED})",
        listed(ports)
    )]
    Crowd {
        /// How many.
        processes: usize,
        /// Their ports.
        ports: Vec<u16>,
    },
    /// A process is in the charge of another service.
    #[error(
        "process {process} is of service `{service}` already, and a process belongs to one service"
    )]
    Shared {
        /// Which process.
        process: String,
        /// Which service.
        service: ServiceName,
        /// The ports of both.
        ports: Vec<u16>,
    },
    /// Another agent has an endpoint.
    #[error(
        "another agent has {endpoint} in charge{}{}",
        pins.as_ref().map(|it| format!(", with its pins at `{}`", it.display())).unwrap_or_default(),
        held_by(holders)
    )]
    OtherAgent {
        /// Which.
        endpoint: Endpoint,
        /// Where its pins are, as far as we see.
        pins: Option<PathBuf>,
        /// The processes that hold its program.
        holders: Vec<String>,
    },
    /// The server's listeners have a program already.
    #[error("{OWN_PROGRAM}")]
    OwnProgram,
    /// The same of one that was attached before.
    #[error("{OWN_PROGRAM}")]
    LateProgram,
    /// A generation would take a supervisor along.
    #[error(
        "process {process} of generation {generation} is {supervisor}: all that it runs would end with it"
    )]
    Supervisor {
        /// Which process.
        process: String,
        /// Of which generation.
        generation: GenerationNumber,
        /// What the program is called.
        supervisor: &'static str,
    },
    /// A generation would take other servers along.
    #[error("the old generation of `{service}` also serves {others}, which would end with it")]
    TakesAlong {
        /// Of which service.
        service: ServiceName,
        /// Their ports and processes, as many as fit into a message.
        others: String,
        /// The ports of the service, and theirs.
        ports: Vec<u16>,
    },
    /// A generation would be started again.
    #[error("{0}, so that it would be there again beside the new one")]
    StartedAgain(Restarter),
    /// A PID namespace ends with a generation.
    #[error(
        "process {old} {}: when it ends, the kernel kills every other one there, its successor too",
        match init {
            None => "is the first one of its PID namespace".to_owned(),
            Some(init) => format!("was started by the first one of its PID namespace, {init}, which may end when it does"),
        }
    )]
    EndsTogether {
        /// The generation's first process.
        old: String,
        /// The first one of its PID namespace, if that is another one.
        init: Option<String>,
        /// Whether the agent is in there itself.
        is_ours: bool,
    },
}

impl<E> From<E> for IdentifyError
where
    WorldError: From<E>,
{
    fn from(error: E) -> Self {
        Self::World(error.into())
    }
}

impl IdentifyError {
    /// What kind of failure it is.
    pub(in crate::daemon) const fn kind(&self) -> ProblemKind {
        match self {
            Self::World(_) | Self::Name(_) => ProblemKind::Failed,
            Self::Shared { .. } | Self::OtherAgent { .. } => ProblemKind::Locked,
            Self::Unseen(_)
            | Self::NothingListens { .. }
            | Self::NothingNewListens { .. }
            | Self::BoundToInterface { .. }
            | Self::LivesElsewhere { .. }
            | Self::NamedElsewhere { .. }
            | Self::NoProcess { .. }
            | Self::NoServer { .. }
            | Self::NotSeenToListen { .. }
            | Self::HoldsNothing { .. }
            | Self::NobodyHolds { .. }
            | Self::JustEnded
            | Self::Obstacle { .. }
            | Self::Doubt { .. }
            | Self::Several { .. }
            | Self::Crowd { .. }
            | Self::OwnProgram
            | Self::LateProgram
            | Self::Supervisor { .. }
            | Self::TakesAlong { .. }
            | Self::StartedAgain(_)
            | Self::EndsTogether { .. } => ProblemKind::Preflight,
        }
    }
}

/// What speaks against a process that holds a listener.
fn against(process: &str, ports: &[u16], obstacle: Obstacle) -> String {
    let holds =
        || format!("the listener on port {} is held by process {process}, which is", listed(ports));
    match obstacle {
        Obstacle::First => {
            format!("{} the first process here: all others end with it", holds())
        }
        Obstacle::Stranger { owner } => format!(
            "process {process} is not of uid {owner}, who made the listener and may have passed it to anybody: it is neither copied \
             nor told to end"
        ),
        Obstacle::Supervisor(name) => {
            format!("{} {name}: all that it runs would end with it", holds())
        }
    }
}

/// In words, after who has something.
pub(super) fn held_by(holders: &[String]) -> String {
    match holders.is_empty() {
        true => String::new(),
        false => format!(", held by process {}", holders.join(", ")),
    }
}

/// For a sentence.
fn listed(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
