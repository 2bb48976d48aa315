//! The sockets that hold the public ports of a service.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use agent_terms::{Endpoint, GenerationNumber};

use crate::datapath::Group;

/// What ports are held for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// Who serves there, and where.
    pub(super) primary: GenerationNumber,
    pub(super) endpoints: Vec<Endpoint>,
    /// Whether no other generation listens there any more.
    pub(super) alone: bool,
}

/// Of one service.
#[derive(Debug)]
pub(in crate::daemon) struct HeldPorts {
    of: Holding,
    sockets: BTreeMap<Group, OwnedFd>,
}

impl HeldPorts {
    pub(super) const fn new(of: Holding, sockets: BTreeMap<Group, OwnedFd>) -> Self {
        Self { of, sockets }
    }

    pub(super) fn is_for(&self, of: &Holding) -> bool {
        self.of == *of
    }

    /// The groups that its sockets are in.
    pub(super) fn groups(&self) -> impl Iterator<Item = Group> {
        self.sockets.keys().copied()
    }

    /// Lets go of what is held, for these.
    pub(super) fn replace(&mut self, sockets: BTreeMap<Group, OwnedFd>) {
        self.sockets = sockets;
    }

    pub(super) fn into_sockets(self) -> BTreeMap<Group, OwnedFd> {
        self.sockets
    }
}
