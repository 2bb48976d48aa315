//! The public ports of servers that listen elsewhere: steering leads there while they live, and nobody else may have the port.
//!
//! A socket that is bound and does not listen holds it. It shares the port with sockets of the server's user only, as that
//! server's listener would, or of the next generation's, which may have it. A stranger who was there before stays, and is told of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use agent_rollout::{Generation, Origin, Phase, PortHold};
use agent_terms::{Endpoint, GenerationId, GenerationNumber, LocalAddress, ServiceId};

use super::held_ports::{HeldPorts, Holding};
use crate::{
    daemon::{agent::Agent, state::troubles::Trouble, world_error::WorldError},
    datapath::Group,
};

impl Agent {
    /// Holds what the primary does not hold itself, and lets go of all else: a service that nobody serves is served by whoever
    /// starts its server again.
    pub(in crate::daemon) fn hold_ports(&mut self, id: ServiceId) {
        let trouble = Trouble::OpenPort(id);
        let Some(record) = self.records.get(&id) else { return self.let_go_of_ports(id) };
        let (name, endpoints) =
            (record.service.name().clone(), record.service.endpoints().to_vec());
        let Some(primary) = record.service.primary().filter(|it| listens_elsewhere(it)) else {
            return self.let_go_of_ports(id);
        };
        let primary = primary.number();
        let alone = record.service.generations().iter().all(|it| it.hold() == PortHold::Moved);
        let of = Holding { primary, endpoints, alone };
        if self.held_ports.get(&id).is_some_and(|held| held.is_for(&of)) {
            return;
        }
        let held = self.sockets_on(id, &of.endpoints);
        match held {
            Ok(sockets) => {
                self.held_ports.insert(id, HeldPorts::new(of, sockets));
                self.over(trouble, &format!("{name}: its port is held"));
                self.warn_of_strangers(id, primary);
            }
            Err(problem) => {
                let why = problem.in_full();
                let message = format!(
                    "{name}: generation {primary} listens elsewhere, and anybody may bind its port: {why}"
                );
                self.trouble(trouble, message);
            }
        }
    }

    /// Has the user of the next generation share what is held, and nobody else.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. What is held stays what it was.
    pub(in crate::daemon) fn offer_ports(
        &mut self,
        id: ServiceId,
        uid: u32,
    ) -> Result<(), WorldError> {
        let Some(held) = self.held_ports.get_mut(&id) else { return Ok(()) };
        let mut offered = BTreeMap::new();
        for group in held.groups().map(|group| Group { uid, ..group }) {
            offered.insert(group, group.hold()?);
            group.forget_sharing()?;
        }
        held.replace(offered);
        Ok(())
    }

    /// Those that are held, as the groups that they are in.
    pub(in crate::daemon) fn held_groups(&self, id: ServiceId) -> BTreeSet<Group> {
        self.held_ports.get(&id).into_iter().flat_map(HeldPorts::groups).collect()
    }

    pub(in crate::daemon) fn let_go_of_ports(&mut self, id: ServiceId) {
        self.held_ports.remove(&id);
        self.moot(Trouble::OpenPort(id));
    }

    /// Those that are held already stay held meanwhile.
    fn sockets_on(
        &mut self,
        id: ServiceId,
        endpoints: &[Endpoint],
    ) -> Result<BTreeMap<Group, OwnedFd>, WorldError> {
        let uid = self.sharer(id)?;
        let mut before =
            self.held_ports.remove(&id).map(HeldPorts::into_sockets).unwrap_or_default();
        let mut sockets = BTreeMap::new();
        for endpoint in endpoints {
            let group = group(endpoint, uid);
            let socket = match before.remove(&group) {
                Some(socket) => socket,
                None => group.hold()?,
            };
            // The agent itself has renewed that memory as long as others shared the port.
            group.forget_sharing()?;
            sockets.insert(group, socket);
        }
        Ok(sockets)
    }

    fn warn_of_strangers(&mut self, id: ServiceId, primary: GenerationNumber) {
        let strangers = match self.beside(id) {
            Ok(strangers) => strangers,
            Err(problem) => {
                return tracing::warn!(
                    problem = problem.in_full(),
                    "cannot tell who else listens on a port"
                );
            }
        };
        if let Some(first) = strangers.first() {
            let message = format!(
                "process {} ({}) listens on the port too: it gets every connection when generation {primary} ends",
                first.pid, first.command
            );
            self.warn_of(GenerationId { service: id, number: primary }, message);
        }
    }

    /// The user who may have the port: that of the next generation while it starts.
    fn sharer(&self, id: ServiceId) -> Result<u32, WorldError> {
        let candidate = self.record(id).service.candidate();
        let rule = match candidate.map(|it| GenerationId { service: id, number: it.number() }) {
            Some(candidate) => self.datapath.bind_rule(candidate)?,
            None => None,
        };
        rule.map_or_else(|| self.uid_of_primary(id), |rule| Ok(rule.owner))
    }

    fn uid_of_primary(&self, id: ServiceId) -> Result<u32, WorldError> {
        let listeners = self.record(id).service.primary().map(|it| it.listeners());
        let open = self.listeners_of(id)?;
        let is_its =
            |cookie: u64| listeners.unwrap_or_default().iter().any(|it| it.cookie == cookie);
        let listener = open.iter().find(|it| is_its(it.cookie.0));
        listener.map(|it| it.uid).ok_or(WorldError::NoListener)
    }
}

/// Somebody who was found listens where people wanted it, and they may start the next one on the port that is free.
fn listens_elsewhere(generation: &Generation) -> bool {
    *generation.phase() == Phase::Primary
        && generation.hold() == PortHold::Moved
        && *generation.origin() != Origin::Found
}

fn group(endpoint: &Endpoint, uid: u32) -> Group {
    let (address, v6only) = match endpoint.address {
        LocalAddress::Ipv4(address) => (IpAddr::V4(address), false),
        LocalAddress::Ipv6(address) => (IpAddr::V6(address), true),
        LocalAddress::DualStack => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), false),
    };
    Group { address: SocketAddr::new(address, endpoint.port), v6only, uid }
}
