//! What the rehearsal tries, thing by thing.

use std::fmt;

use super::about::{About, Without};
use crate::datapath::programs::{ADOPT_FLOW, ENLIST, LIST_PROCESSES, LIST_SOCKETS, MIGRATE};

/// Something that the datapath needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// A network namespace and a mount namespace for the rehearsal; the agent itself needs neither.
    Seclusion,
    /// The file system that pins live on.
    #[doc(alias = "CONFIG_BPF_SYSCALL")]
    FileSystem,
    /// The kernel's own type information.
    #[doc(alias = "CONFIG_DEBUG_INFO_BTF")]
    Types,
    /// A map that listeners can be assigned from.
    #[doc(alias = "BPF_MAP_TYPE_SOCKMAP")]
    SocketMap,
    /// Storage in a listener that its connections inherit.
    #[doc(alias = "BPF_F_CLONE")]
    InheritedStorage,
    /// The buffer that the kernel's reports come through.
    #[doc(alias = "BPF_MAP_TYPE_RINGBUF")]
    RingBuffer,
    /// All other maps.
    TableMaps,
    /// The program that steers.
    #[doc(alias = "BPF_PROG_TYPE_SK_LOOKUP")]
    Steer,
    /// The program that lets a new generation bind the old one's port, for IPv4.
    ShareBind4,
    /// The same for IPv6.
    ShareBind6,
    /// The program that keeps listeners of launched generations off Multipath TCP.
    RefuseMultipath,
    /// The program that tells a server its public port, for IPv4; comfort.
    PublicPort4,
    /// The same for IPv6.
    PublicPort6,
    /// The program that counts flows.
    TrackFlows,
    /// The program that follows processes that are born.
    FollowFork,
    /// The program that lets go of those that end.
    FollowExit,
    /// The program that walks the processes.
    Enlist,
    /// The program that tells of each process.
    ListProcesses,
    /// The program that walks the files of processes.
    ListSockets,
    /// The program that walks the sockets.
    AdoptListeners,
    /// The program that takes an open connection over.
    AdoptFlow,
    /// The program that moves connections nobody has accepted.
    #[doc(alias = "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE")]
    Migrate,
    /// Taking over a running listener: tagged, shared, and in the socket map.
    TakeOver,
    /// Hearing of a listener's end.
    Report,
}

impl Feature {
    /// All of them, in the order in which one needs the other.
    pub const ALL: [Self; 24] = [
        Self::Seclusion,
        Self::FileSystem,
        Self::Types,
        Self::SocketMap,
        Self::InheritedStorage,
        Self::RingBuffer,
        Self::TableMaps,
        Self::Steer,
        Self::ShareBind4,
        Self::ShareBind6,
        Self::RefuseMultipath,
        Self::PublicPort4,
        Self::PublicPort6,
        Self::TrackFlows,
        Self::FollowFork,
        Self::FollowExit,
        Self::Enlist,
        Self::ListProcesses,
        Self::ListSockets,
        Self::AdoptListeners,
        Self::AdoptFlow,
        Self::Migrate,
        Self::TakeOver,
        Self::Report,
    ];

    pub(super) const MAPS: [Self; 4] =
        [Self::SocketMap, Self::InheritedStorage, Self::RingBuffer, Self::TableMaps];

    pub(super) fn of_map(name: &str) -> Self {
        match name {
            "LISTENERS" => Self::SocketMap,
            "TAGS" => Self::InheritedStorage,
            "EVENTS" | "AYA_LOGS" => Self::RingBuffer,
            _ => Self::TableMaps,
        }
    }

    pub(super) fn of_program(name: &str) -> Self {
        match name {
            "steer" => Self::Steer,
            "share_bind4" => Self::ShareBind4,
            "share_bind6" => Self::ShareBind6,
            "refuse_multipath" => Self::RefuseMultipath,
            "public_port4" => Self::PublicPort4,
            "public_port6" => Self::PublicPort6,
            "track_flows" => Self::TrackFlows,
            "follow_fork" => Self::FollowFork,
            "follow_exit" => Self::FollowExit,
            ENLIST => Self::Enlist,
            LIST_PROCESSES => Self::ListProcesses,
            LIST_SOCKETS => Self::ListSockets,
            MIGRATE => Self::Migrate,
            ADOPT_FLOW => Self::AdoptFlow,
            _ => Self::AdoptListeners,
        }
    }

    pub(super) const fn needs_cgroup(self) -> bool {
        matches!(self, Self::ShareBind4 | Self::ShareBind6 | Self::RefuseMultipath)
            || self.is_comfort()
    }

    /// Whether the agent works without it.
    pub const fn is_comfort(self) -> bool {
        matches!(About::of(self).without, Without::Less(_))
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(About::of(*self).name)
    }
}
