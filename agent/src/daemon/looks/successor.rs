//! Servers that somebody else starts on our ports: the one that takes the place of a generation that died becomes the next
//! generation by itself.

use std::time::Instant;

use agent_api::{EventKind, Problem, Serving, Stranger};
use agent_rollout::{Event, Listening, Service, Timestamp};
use agent_terms::{GenerationId, ServiceId};

use crate::daemon::looks::observe::LISTENER_LOOK;
use crate::{
    daemon::{
        agent::{Agent, RETRY},
        identify::{also, asked::Asked, found, who},
        state::{state_file::Mark, troubles::Trouble},
        step::{Step, take},
        world_error::WorldError,
    },
    host::{
        holders, kin,
        process::{self, Pid},
        sock_diag::{self, Listener},
    },
};

impl Agent {
    /// A process that is nobody's listens on a port of ours, or of any service if none is named. It is looked at now and once
    /// more when a dump can surely find the socket.
    pub(in crate::daemon) fn note_stranger(&mut self, service: ServiceId) {
        let meant: Vec<ServiceId> = match self.records.contains_key(&service) {
            true => vec![service],
            false => self.records.keys().copied().collect(),
        };
        for id in meant {
            self.strangers.look_at(id, Instant::now() + LISTENER_LOOK);
            self.look_for_successor(id);
        }
    }

    /// Looks where it is due, and again as long as somebody listens where nobody serves: a server that is just being started
    /// shows less than it will.
    pub(in crate::daemon) fn look_for_successors_where_due(&mut self) {
        for (id, due) in self.strangers.take_due(Instant::now()) {
            self.look_for_successor(id);
            if self.records.get(&id).is_some_and(|it| it.service.may_take_in()) {
                if !self.strange_listeners(id).is_ok_and(|it| it.is_empty()) {
                    self.strangers.look_again(id, due);
                }
                if let Err(problem) = self.warn_of_usurpers(id) {
                    tracing::warn!(
                        problem = problem.in_full(),
                        "cannot tell who serves in place of a service"
                    );
                }
            } else if self.records.get(&id).is_some_and(|it| it.service.is_served())
                && let Err(problem) = self.warn_of_rivals(id)
            {
                tracing::warn!(
                    problem = problem.in_full(),
                    "cannot tell who else listens on a service's ports"
                );
            }
        }
    }

    /// Who is not taken in and serves where nobody of the service does has its clients' connections, and is told of once.
    fn warn_of_usurpers(&mut self, id: ServiceId) -> Result<(), WorldError> {
        let Serving::Strangers { processes } = self.serving(id)? else {
            self.strangers.note_no_usurpers(id);
            return Ok(());
        };
        let cookies: Vec<u64> = self.strange_listeners(id)?.iter().map(|it| it.cookie.0).collect();
        if cookies.iter().all(|cookie| self.strangers.are_told_of(id, *cookie))
            || !self.strangers.are_told_of_usurpers(id, Instant::now())
        {
            return Ok(());
        }
        self.strangers.note_told_of(id, cookies.into_iter());
        let name = self.record(id).service.name().clone();
        let described = |it: &Stranger| format!("process {} ({})", it.pid, it.command);
        let mut described: Vec<_> = processes.iter().map(described).collect();
        if described.is_empty() {
            described.push("a process that cannot be seen from here".to_owned());
        }
        let message = format!(
            "no generation serves, and all new connections go to {}, which is not the service's",
            described.join(", ")
        );
        self.journal.note(&name, None, EventKind::Warning, message);
        Ok(())
    }

    /// Who listens beside a generation that serves gets nothing from steering, and is told of once.
    fn warn_of_rivals(&mut self, id: ServiceId) -> Result<(), WorldError> {
        let Some(record) = self.records.get(&id) else { return Ok(()) };
        let name = record.service.name().clone();
        let all = self.strange_listeners(id)?;
        let mut rivals = all.clone();
        rivals.retain(|it| !self.strangers.are_told_of(id, it.cookie.0));
        // Ourselves, most of the time: a member that joins a group for a moment.
        if rivals.is_empty() {
            return Ok(());
        }
        let inodes = rivals.iter().map(|it| it.inode).collect();
        let pids: Vec<Pid> = holders::holders(&inodes)?.found.iter().map(|it| it.pid).collect();
        let mut ports: Vec<u16> = rivals.iter().map(|it| it.port).collect();
        ports.dedup();
        if let Some(message) = also::rivals(&pids, &ports)
            && self.strangers.are_told_of_rivals(id, Instant::now())
        {
            self.strangers.note_told_of(id, all.iter().map(|it| it.cookie.0));
            self.journal.note(&name, None, EventKind::Warning, message);
        }
        Ok(())
    }

    /// Listeners on the service's ports that are no generation's.
    pub(in crate::daemon) fn strange_listeners(
        &self,
        id: ServiceId,
    ) -> Result<Vec<Listener>, WorldError> {
        self.strange_of(id, self.listeners_of(id)?)
    }

    /// Those of a service's listeners that are no generation's.
    pub(in crate::daemon) fn strange_of(
        &self,
        id: ServiceId,
        mut listeners: Vec<Listener>,
    ) -> Result<Vec<Listener>, WorldError> {
        let service = &self.record(id).service;
        let known = service.known_listeners();
        listeners.retain(|it| {
            service.endpoints().iter().any(|endpoint| endpoint.port == it.port)
                && !known.contains(&it.cookie.0)
        });
        if listeners.is_empty() {
            return Ok(listeners);
        }
        let inodes = listeners.iter().map(|it| it.inode).collect();
        let members = self.pids_of_service(id)?;
        let own = holders::holders_among(members, &inodes)?.found;
        listeners.retain(|it| !own.iter().any(|holder| holder.inodes.contains(&it.inode)));
        Ok(listeners)
    }

    /// Where a service is vacant, looks whether its server was started anew. What cannot be found out is told, and tried again.
    fn look_for_successor(&mut self, id: ServiceId) {
        let Some(record) = self.records.get(&id) else { return };
        let (name, trouble) = (record.service.name().clone(), Trouble::Successor(id));
        if record.unfinished.is_some() || !record.service.may_take_in() {
            return self.moot(trouble);
        }
        match self.adopt_successor(id) {
            Ok(()) => self.over(trouble, &format!("{name}: whether it was started anew is known")),
            Err(problem) => {
                let problem = problem.in_full();
                let message = format!("{name}: cannot take up a server started anew: {problem}");
                self.trouble(trouble, message);
                self.strangers.look_at(id, Instant::now() + RETRY);
            }
        }
    }

    fn adopt_successor(&mut self, id: ServiceId) -> Result<(), WorldError> {
        let Some((server, mark)) = self.successor(id)? else { return Ok(()) };
        let public = |listener: &Listener| listener.port;
        let generation =
            GenerationId { service: id, number: self.record(id).service.next_number() };
        let endpoints = self.record(id).service.endpoints().to_vec();
        let to_adopt = found::to_adopt(&server.listeners, public);
        if found::uncovered(&endpoints, &to_adopt).is_some() {
            return Ok(());
        }
        self.enlist(generation, server.pids.iter().copied())?;
        take(Step::TakeOverListeners, || {
            Ok(self.datapath.adopt_listeners(generation, &endpoints, &to_adopt)?)
        })?;
        let hold = found::hold(&server.listeners, public);
        let listeners = found::records(&server.listeners, public);
        let listening = Listening { hold, listeners };
        self.feed(id, Event::Restarted(listening, server.processes()))?;
        self.record_mut(id).mark = Some(mark);
        self.remember_found(generation)?;
        self.remember_starters(generation, &server, Asked::By(None));
        self.count_processes(generation)?;
        self.attribute_flows(id)?;
        self.guard_queues(id);
        self.note(
            generation,
            EventKind::Warning,
            format!("generation {} was started by somebody else", generation.number),
        );
        Ok(())
    }

    /// A server on the service's ports that is no generation's, of the same user and program as the one before.
    fn successor(&self, id: ServiceId) -> Result<Option<(found::Found, Mark)>, WorldError> {
        let listeners = self.strange_listeners(id)?;
        if listeners.is_empty() {
            return Ok(None);
        }
        let service = &self.record(id).service;
        let before = service.generations().iter().max_by_key(|it| it.number());
        let asked = Asked::ByNobody(before.map_or_else(Timestamp::default, |it| it.since()));
        let server = match who::server_of(listeners, None, asked) {
            Ok(server) => server,
            Err(doubt) => {
                tracing::debug!(
                    doubt = Problem::from(doubt).in_full(),
                    "nobody is taken for a server started anew"
                );
                return Ok(None);
            }
        };
        let pids = server.pids.iter().copied();
        let mark = mark_of(pids, &server.listeners)?;
        let same = mark.is_some() && mark == self.record(id).mark;
        Ok(mark.filter(|_| same).map(|mark| (server, mark)))
    }

    /// Another one serves than before, however it came to that: it need not be the same program.
    pub(in crate::daemon) fn remember_mark_of_another(&mut self, id: ServiceId, before: &Service) {
        let primary = |service: &Service| service.primary().map(|it| it.number());
        let now = self.record_if_any(id).and_then(|record| primary(&record.service));
        if let Some(number) = now.filter(|_| now != primary(before)) {
            self.remember_mark(GenerationId { service: id, number });
        }
    }

    /// Remembers who serves, to know it again when somebody else starts it anew.
    pub(in crate::daemon) fn remember_mark(&mut self, generation: GenerationId) {
        match self.find_mark(generation) {
            Ok(Some(mark)) => {
                let known = self.record_mut(generation.service).mark.replace(mark.clone());
                if known != Some(mark) {
                    self.save_or_owe();
                }
            }
            // It has just ended.
            Ok(None) => {}
            Err(problem) => {
                tracing::warn!(problem = problem.in_full(), "cannot tell what program serves");
            }
        }
    }

    fn find_mark(&self, generation: GenerationId) -> Result<Option<Mark>, WorldError> {
        let Some(known) = self.generation(generation) else { return Ok(None) };
        let mut listeners = sock_diag::listeners()?;
        listeners.retain(|it| known.listeners().iter().any(|known| known.cookie == it.cookie.0));
        mark_of(self.pids_of(generation)?, &listeners)
    }
}

/// By what the server of these listeners is known again.
fn mark_of(
    pids: impl IntoIterator<Item = Pid>,
    listeners: &[Listener],
) -> Result<Option<Mark>, WorldError> {
    let inodes = listeners.iter().map(|it| it.inode).collect();
    let holders = holders::holders_among(pids, &inodes)?.found;
    let mark = |pid: Pid| {
        Some(Mark { user: kin::user_of(pid).ok()?, program: process::program_of(pid).ok()? })
    };
    Ok(holders.iter().find_map(|holder| mark(holder.pid)))
}
