//! The flows of a service: listed by their tags, whatever their port, and compared with what the kernel has counted.
//!
//! A signal cannot be taken back, so that neither is believed alone: a list shows only what was asked for, and a counter only
//! what its program has seen.

use std::time::{Duration, Instant};

use agent_ebpf::flow::{FlowCounts, GenerationKey, OPEN};
use agent_rollout::Flows;
use agent_terms::{GenerationId, ServiceId};

use crate::daemon::looks::observe::{owner, ports};
use crate::{
    daemon::{agent::Agent, state::troubles::Trouble, world_error::WorldError},
    datapath::Datapath,
    host::sock_diag::{self, Connection, Stage},
};

/// How often flows are listed on the ports that are known, before all of the machine are: one that is moved from one listener
/// to another may be missed once.
const TRIES: u32 = 3;
/// How many clients are named that are cut off.
const MOST_NAMED: usize = 8;

impl Agent {
    /// The ports that flows of a service may have: those that clients know, and those that its listeners have or had.
    pub(in crate::daemon) fn ports_of(&self, id: ServiceId) -> Vec<u16> {
        let service = &self.record(id).service;
        let mut all = ports(service.endpoints());
        all.extend(service.generations().iter().flat_map(agent_rollout::Generation::own_ports));
        all
    }

    /// All connections to these ports, tagged or not.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(in crate::daemon) fn flows_of(&self, id: ServiceId) -> Result<Vec<Connection>, WorldError> {
        self.flows_of_all(&[id])
    }

    /// The same of several services, by one look.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(in crate::daemon) fn flows_of_all(
        &self,
        ids: &[ServiceId],
    ) -> Result<Vec<Connection>, WorldError> {
        let ports: Vec<_> = ids.iter().flat_map(|id| self.ports_of(*id)).collect();
        Ok(sock_diag::connections(&ports, Some(self.datapath.tags()))?)
    }

    /// All connections of this network namespace that have a tag of ours.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub(in crate::daemon) fn all_tagged_flows(&self) -> Result<Vec<Connection>, WorldError> {
        Ok(sock_diag::tagged_connections(self.datapath.tags())?)
    }

    /// Counts the flows by their tags, from the sockets themselves. One that the server has closed is the kernel's, which
    /// sends the rest whether the server lives or not; one that was given up before anybody accepted it is nobody's. Nothing
    /// of a generation whose end is about to be told.
    pub(in crate::daemon) fn count_flows(
        &mut self,
        generation: GenerationId,
    ) -> Result<Option<Flows>, WorldError> {
        let begun = Instant::now();
        let (listed, missing) = self.list_until_none_is_missing(generation)?;
        self.count_cost = begun.elapsed();
        let Listed { open, queued, idle, .. } = listed;
        let flows = match missing {
            0 => Flows { open, queued, idle },
            // Nobody knows for how long they have been idle.
            _ => Flows { open: open + missing, queued, idle: Duration::ZERO },
        };
        // One that dies has no flows any more, some time before anybody is told of its end. That must not pass for a drain. Asked
        // for after the count: whoever lives now lived then.
        if open == 0 && !self.lives_on(generation)? {
            return Ok(None);
        }
        self.tell_of_missing(generation, missing);
        self.memories.of_mut(generation).flows = Some(flows);
        Ok(Some(flows))
    }

    /// The flows on the known ports; where the kernel has counted more, those on any port. And how many are missing even then.
    fn list_until_none_is_missing(
        &mut self,
        generation: GenerationId,
    ) -> Result<(Listed, u64), WorldError> {
        for _try in 0..TRIES {
            let before = self.datapath.flow_counts(generation)?;
            let flows = self.flows_where_they_are(generation.service)?;
            let listed = Listed::of(&flows, generation.key());
            if listed.missing(before, self.datapath.flow_counts(generation)?) == 0 {
                return Ok((listed, 0));
            }
        }
        let before = self.datapath.flow_counts(generation)?;
        let listed = Listed::of(&self.all_tagged_flows()?, generation.key());
        let missing = listed.missing(before, self.datapath.flow_counts(generation)?);
        let explained = missing > 0 && missing <= self.uncounted_ends(generation)?;
        Ok((listed, if explained { 0 } else { missing }))
    }

    /// How many ends of flows may have gone uncounted. What the program of an agent before us has missed, nobody knows.
    fn uncounted_ends(&self, generation: GenerationId) -> Result<u64, WorldError> {
        match self.generation(generation) {
            Some(known) if known.since() >= self.began => Ok(self.datapath.missed_changes()?),
            Some(_) | None => Ok(u64::MAX),
        }
    }

    /// Which clients are cut off if a generation ends now, for people; empty if none are.
    pub(in crate::daemon) fn clients_to_cut_off(&self, generation: GenerationId) -> String {
        if self.seen_flows(generation).is_none_or(|flows| flows.open == 0) {
            return String::new();
        }
        match self.flows_of(generation.service) {
            Ok(flows) => in_words(&flows, generation.key()),
            Err(problem) => format!("; whom that cuts off cannot be told: {}", problem.in_full()),
        }
    }

    fn tell_of_missing(&mut self, generation: GenerationId, missing: u64) {
        let trouble = Trouble::Flows(generation);
        let (name, number) = (self.record(generation.service).service.name(), generation.number);
        if missing == 0 {
            let message = format!("all flows of generation {number} of {name} are found again");
            return self.over(trouble, &message);
        }
        let flows = if missing == 1 { "flow" } else { "flows" };
        let message = format!(
            "the kernel counts {missing} {flows} of generation {number} of {name} more than can be found: \
             it is not told to end before the time to drain is up"
        );
        self.trouble(trouble, message);
    }
}

fn in_words(flows: &[Connection], generation: GenerationKey) -> String {
    let ends = |flow: &&Connection| {
        owner(flow) == Some(generation) && flow.stage() != Stage::Orphaned && !flow.is_abandoned()
    };
    let flows: Vec<_> = flows.iter().filter(ends).collect();
    let client = |flow: &&Connection| {
        let idle = Duration::from_secs(flow.idle.unwrap_or_default().as_secs());
        format!("{} ({}, idle for {})", flow.remote, flow.state, humantime::format_duration(idle))
    };
    let named: Vec<_> = flows.iter().take(MOST_NAMED).map(client).collect();
    let others = match flows.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    match named[..] {
        [] => String::new(),
        _ => format!("; that cuts off {}{others}", named.join(", ")),
    }
}

/// What a list shows of a generation's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    /// Those that would end with it.
    open: u64,
    /// How many of these wait to be accepted.
    queued: u64,
    /// How long every one of them has been idle at least.
    idle: Duration,
    /// All that the kernel counts as open: also what the server has closed, or nobody will accept.
    counted: u64,
}

impl Listed {
    fn of(flows: &[Connection], generation: GenerationKey) -> Self {
        let mut listed = Self { open: 0, queued: 0, idle: Duration::MAX, counted: 0 };
        for flow in flows {
            let tag = flow.tag.as_deref().and_then(Datapath::parse_tag);
            let Some(tag) = tag.filter(|tag| tag.generation == generation) else { continue };
            listed.counted += u64::from(tag.role == OPEN);
            if flow.stage() != Stage::Orphaned && !flow.is_abandoned() {
                listed.open += 1;
                listed.queued += u64::from(flow.stage() == Stage::Queued);
                listed.idle = listed.idle.min(flow.idle.unwrap_or_default());
            }
        }
        listed
    }

    /// How many flows must have been there from the begin of the list to its end, and are not in it: of those that were open
    /// before it, no more can have ended than had after it.
    const fn missing(&self, before: FlowCounts, after: FlowCounts) -> u64 {
        before.opened.saturating_sub(after.closed).saturating_sub(self.counted)
    }
}

#[cfg(test)]
mod tests {
    use agent_ebpf::flow::CLOSED;

    use super::*;
    use crate::host::sock_diag::{PATIENCE, SocketCookie, SocketInode, TcpState};

    const OURS: GenerationKey = GenerationKey { service: 1, generation: 2 };

    fn flow(role: u32, generation: GenerationKey) -> Connection {
        let words = [generation.service, generation.generation, role, 0];
        Connection {
            cookie: SocketCookie(1),
            inode: Some(SocketInode(1)),
            local: "127.0.0.1:9090".parse().unwrap(),
            remote: "127.0.0.1:40000".parse().unwrap(),
            interface: 0,
            state: TcpState::Established,
            idle: Some(Duration::from_secs(5)),
            tag: Some(words.iter().flat_map(|word| word.to_ne_bytes()).collect()),
        }
    }

    #[test]
    fn what_the_server_has_closed_is_counted_and_not_waited_for() {
        let closed = Connection { inode: None, state: TcpState::FinWait1, ..flow(OPEN, OURS) };
        let queued = Connection { inode: None, ..flow(OPEN, OURS) };
        let other = flow(OPEN, GenerationKey { generation: 3, ..OURS });
        let listed = Listed::of(&[closed, queued, other, flow(OPEN, OURS)], OURS);
        assert_eq!((listed.open, listed.queued, listed.counted), (2, 1, 3));
        assert_eq!(listed.idle, Duration::from_secs(5));
        assert_eq!(Listed::of(&[flow(CLOSED, OURS)], OURS).counted, 0);
    }

    #[test]
    fn who_is_cut_off_is_named_and_of_many_only_some() {
        let other = flow(OPEN, GenerationKey { generation: 3, ..OURS });
        let closed = Connection { inode: None, state: TcpState::FinWait1, ..flow(OPEN, OURS) };
        assert_eq!(in_words(&[other, closed], OURS), "");
        let text = in_words(&vec![flow(OPEN, OURS); 9], OURS);
        assert!(text.starts_with("; that cuts off 127.0.0.1:40000 (established, idle for 5s), "));
        assert!(text.ends_with(" and 1 more"), "{text}");
    }

    #[test]
    fn one_that_nobody_accepts_is_waited_for_as_long_as_its_client_waits() {
        let waits = Connection { inode: None, idle: Some(PATIENCE), ..flow(OPEN, OURS) };
        let gone = Connection { state: TcpState::CloseWait, ..waits.clone() };
        let just_closed = Connection { idle: Some(PATIENCE / 2), ..gone.clone() };
        let accepted = Connection { inode: Some(SocketInode(1)), ..gone.clone() };
        assert_eq!(Listed::of(&[gone], OURS), Listed { counted: 1, ..Listed::of(&[], OURS) });
        assert_eq!(Listed::of(&[waits, just_closed, accepted], OURS).open, 3);
    }

    #[test]
    fn only_what_was_there_all_the_time_can_be_missing() {
        let counts = |opened, closed| FlowCounts { opened, closed, reset: 0 };
        let one = Listed::of(&[flow(OPEN, OURS)], OURS);
        assert_eq!(one.missing(counts(3, 1), counts(3, 1)), 1);
        assert_eq!(one.missing(counts(3, 1), counts(3, 2)), 0, "one has ended");
        assert_eq!(one.missing(counts(3, 2), counts(9, 2)), 0, "others have come");
        assert_eq!(one.missing(counts(0, 0), counts(0, 0)), 0, "not counted");
    }
}
