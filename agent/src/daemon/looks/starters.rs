//! Servers that come back: whoever started one that was found may start it again when it is told to end, and is its master
//! then.

use std::{collections::HashSet, time::Instant};

use agent_api::EventKind;
use agent_rollout::{Event, Generation, Phase, Timestamp};
use agent_terms::{GenerationId, ServiceId};

use super::{observe, starter_of::StarterOf};
use crate::{
    daemon::{
        agent::Agent,
        identify::{asked::Asked, found},
        state::clock,
        world_error::WorldError,
    },
    host::{
        doors, holders,
        init::{self, NamespaceEnd},
        process::Pid,
        process_table::ProcessTable,
        sock_diag,
        starter::{Seen, Starter, has_threads, is_of_same_start},
    },
};

/// How often somebody starts a server again who will always.
const HABIT: u32 = 3;

impl Agent {
    /// Remembers who has started a server that was found. Neither whoever asks nor anybody above is one that starts it again.
    pub(in crate::daemon) fn remember_starters(
        &mut self,
        generation: GenerationId,
        server: &found::Found,
        asked: Asked,
    ) {
        let may_be = |pid| asked.may_be_master(pid).unwrap_or(false);
        let owner = server.listeners.first().map(|it| it.uid);
        let found = match server.root().map(|root| Starter::above(root, owner, may_be)) {
            Ok(Ok(found)) => found,
            // One that has just ended is found gone by others.
            Ok(Err(error)) => return tracing::debug!(%error, "cannot tell who started a server"),
            Err(problem) => {
                return tracing::debug!(
                    problem = problem.in_full(),
                    "cannot tell who started a server"
                );
            }
        };
        let record = self.record_mut(generation.service);
        record.starters.retain(|it| found.iter().all(|new| new.pid() != it.starter.pid()));
        let number = generation.number;
        let of = |starter| {
            let not_before = Timestamp::default();
            StarterOf { generation: number, starter, not_before, is_told: false, starts: 0 }
        };
        record.starters.extend(found.into_iter().map(of));
        self.save_or_owe();
        // A master may be starting more workers just now.
        self.await_return(generation.service);
    }

    /// Whoever asks for an upgrade, or is above who does, does not mean to start the old version again.
    pub(in crate::daemon) fn spare_starters(&mut self, id: ServiceId, asked: Asked) {
        let record = self.record_mut(id);
        record.starters.retain(|it| asked.may_be_master(it.starter.pid()).unwrap_or(false));
    }

    /// Has it looked for a while whether somebody starts a server again.
    pub(in crate::daemon) fn await_return(&mut self, id: ServiceId) {
        let Some(record) = self.record_if_any(id) else { return };
        if let Some(not_before) = record.starters.iter().map(|it| it.not_before).max() {
            let wait = not_before.since(clock::now());
            self.returns.expect(id, Instant::now() + wait);
        }
    }

    /// A generation has ended before its time: what comes back of it is there to fall back to, as it was.
    pub(in crate::daemon) fn note_ended_early(&mut self, id: ServiceId, gone: &Generation) {
        let (Phase::Clearing { keep_until: until, .. }
        | Phase::Draining { keep_until: until, .. }
        | Phase::Standby { until, .. }) = gone.phase()
        else {
            return;
        };
        if *until <= clock::now() {
            return;
        }
        let record = self.record_mut(id);
        let of_it = record.starters.iter_mut().filter(|it| it.generation == gone.number());
        of_it.for_each(|it| it.not_before = *until);
        let number = gone.number();
        let message = format!(
            "generation {number} has ended although it was kept to fall back to: there is nothing of it to go back to any more"
        );
        let name = record.service.name().clone();
        self.journal.note(&name, Some(number), EventKind::Warning, message);
    }

    /// Who starts a server again and was left alone, in words.
    pub(in crate::daemon) fn busy_starters(&self, id: ServiceId) -> Vec<String> {
        let told = self.record(id).starters.iter().filter(|it| it.is_told);
        told.filter(|it| it.starter.lives().unwrap_or(true)).map(StarterOf::beside).collect()
    }

    /// Takes in what has come back, where that may happen now.
    pub(in crate::daemon) fn look_for_returns_where_due(&mut self) {
        let now = Instant::now();
        for id in self.returns.take_due(now) {
            if let Err(problem) = self.take_in_what_came_back(id) {
                tracing::warn!(
                    problem = problem.in_full(),
                    "cannot tell whether somebody starts a server again"
                );
            }
            if self.record_if_any(id).is_none_or(|it| it.starters.is_empty()) {
                self.returns.forget(id);
            } else if self.returns.give_up(id, now) {
                // Somebody who starts it later wants something. Of whom people were told they go on being told.
                let record = self.record_mut(id);
                let service = &record.service;
                let lives = |it: &StarterOf| service.generation(it.generation).is_some();
                record.starters.retain(|it| it.is_told || lives(it));
            }
        }
    }

    fn take_in_what_came_back(&mut self, id: ServiceId) -> Result<(), WorldError> {
        let Some(record) = self.records.get_mut(&id) else { return Ok(()) };
        record.starters.retain(|it| it.starter.lives().unwrap_or(true));
        for known in record.starters.clone() {
            let looked = self.look_at_starter(id, &known);
            // One that has just ended can be looked at no more, and starts nothing.
            if looked.is_err() && known.starter.lives()? {
                return looked;
            }
        }
        Ok(())
    }

    fn look_at_starter(&mut self, id: ServiceId, known: &StarterOf) -> Result<(), WorldError> {
        let StarterOf { generation, starter, .. } = known;
        let of = GenerationId { service: id, number: *generation };
        let members = self.pids_of_service(id)?;
        if members.contains(&starter.pid()) {
            return Ok(());
        }
        let seen = starter.look(&members)?;
        let has_other_work = self.returns.has_other_work(starter.pid(), &seen);
        let is_busy = starter.is_busy() || has_other_work || has_threads(starter.pid());
        if is_busy {
            // What it did once is not forgotten.
            self.change_starter(id, known, |it| it.starter.note_busy());
        }
        let Seen { again, others, is_whole, .. } = seen;
        if again.is_empty() {
            return Ok(());
        }
        if is_busy || self.serves_anything_else(id, starter, &again)? || ends_others(starter)? {
            return self.spare(of, known);
        }
        // What is not known yet is known at the next look.
        if !others.is_empty() || !is_whole {
            return Ok(());
        }
        match self.generation(of).map(Generation::is_told) {
            Some(false) if self.are_more_workers(of, &again)? => self.take_in_master(of, starter),
            Some(true) if starter.is_child_gone()? => self.end_what_came_back(of, known, &again),
            None if starter.is_child_gone()? && self.may_end_what_came_back(id, known) => {
                let number = self.record(id).service.next_number();
                self.end_what_came_back(GenerationId { number, ..of }, known, &again)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn change_starter(
        &mut self,
        id: ServiceId,
        known: &StarterOf,
        change: impl Fn(&mut StarterOf),
    ) {
        let starters = &mut self.record_mut(id).starters;
        let same = |it: &&mut StarterOf| it.starter.pid() == known.starter.pid();
        starters.iter_mut().filter(same).for_each(change);
    }

    /// Who came back where nobody serves is the next generation; while the new one has to prove itself, or has not, or the old
    /// one was to be kept, it is what there is to fall back to.
    fn may_end_what_came_back(&self, id: ServiceId, known: &StarterOf) -> bool {
        let service = &self.record(id).service;
        let is_of_use = service.primary().is_some_and(|it| !it.is_stuck());
        let is_certain = service.is_served() && is_of_use && !service.settles();
        is_certain && known.not_before <= clock::now()
    }

    /// Whether a starter serves something that is not the service, or has something of another service below it.
    fn serves_anything_else(
        &self,
        id: ServiceId,
        starter: &Starter,
        again: &[Pid],
    ) -> Result<bool, WorldError> {
        let table = ProcessTable::read()?;
        let all = table.with_descendants(&[starter.pid()]);
        for (other, record) in self.records.iter().filter(|(other, _)| **other != id) {
            let theirs = self.pids_of_service(*other)?;
            let has_started = |it: &StarterOf| it.starter.pid() == starter.pid();
            if record.starters.iter().any(has_started) || all.iter().any(|pid| theirs.contains(pid))
            {
                return Ok(true);
            }
        }
        let ports = observe::ports(self.record(id).service.endpoints());
        let mut listeners = sock_diag::listeners()?;
        listeners.retain(|it| !ports.contains(&it.port));
        let mut inodes: HashSet<_> = listeners.iter().map(|it| it.inode).collect();
        inodes.extend(doors::doors().map_err(WorldError::Doors)?);
        let of_servers: HashSet<Pid> = table.with_descendants(again).into_iter().collect();
        let mut others = all;
        others.retain(|pid| !of_servers.contains(pid));
        Ok(!holders::holders_among(others, &inodes)?.found.is_empty())
    }

    /// Who has anything else to do is told of, once.
    fn spare(&mut self, generation: GenerationId, known: &StarterOf) -> Result<(), WorldError> {
        let is_leaving = self.generation(generation).is_none_or(Generation::is_told);
        if known.is_told || !is_leaving || !known.starter.is_child_gone()? {
            return Ok(());
        }
        self.change_starter(generation.service, known, |it| it.is_told = true);
        let message = known.beside();
        let name = self.record(generation.service).service.name().clone();
        self.journal.note(&name, Some(generation.number), EventKind::Warning, message);
        Ok(())
    }

    /// Whether these are workers of a generation that serves: they listen where it does, and were started together with it.
    fn are_more_workers(
        &self,
        generation: GenerationId,
        again: &[Pid],
    ) -> Result<bool, WorldError> {
        let inodes: HashSet<_> =
            self.strange_listeners(generation.service)?.iter().map(|it| it.inode).collect();
        let listen =
            holders::holders_among(ProcessTable::read()?.with_descendants(again), &inodes)?.found;
        let members = self.pids_of(generation)?;
        Ok(!listen.is_empty() && again.iter().all(|pid| is_of_same_start(*pid, &members)))
    }

    /// A starter that has shown itself to be the master of a generation belongs to it, with all that it started.
    fn take_in_master(
        &mut self,
        generation: GenerationId,
        starter: &Starter,
    ) -> Result<(), WorldError> {
        let message = format!(
            "process {} starts the server of generation {} again, and belongs to it",
            found::describe(starter.pid()),
            generation.number
        );
        self.enlist(generation, [starter.pid()])?;
        self.note(generation, EventKind::Warning, message);
        self.look_for_new_listeners(generation)?;
        self.remember_found(generation)?;
        self.save_or_owe();
        self.count_processes(generation)
    }

    /// Tells what was started again to end: as a part of the generation that was told already, or as one of its own.
    fn end_what_came_back(
        &mut self,
        generation: GenerationId,
        known: &StarterOf,
        again: &[Pid],
    ) -> Result<(), WorldError> {
        let (pids, message) = self.count_start(generation.service, known, again);
        let starter = known.starter.pid();
        let is_starter_told = pids.contains(&starter);
        self.enlist(generation, pids)?;
        if self.generation(generation).is_none() {
            self.feed(generation.service, Event::CameBack)?;
        }
        if is_starter_told {
            self.note_starter_joined(generation, starter)?;
        }
        self.note(generation, EventKind::Warning, message);
        // It may have ended before anybody waited for it.
        self.count_processes(generation)?;
        self.tell_next_roots(generation)
    }

    /// Who is to end, and why. Once is no habit: somebody may have wanted to go back, or try again. Who goes on starting what
    /// is told to end is a supervisor, and is told itself.
    fn count_start(
        &mut self,
        id: ServiceId,
        known: &StarterOf,
        again: &[Pid],
    ) -> (Vec<Pid>, String) {
        let starts = known.starts + 1;
        self.change_starter(id, known, |it| it.starts = starts);
        self.returns.expect(id, Instant::now());
        let (starter, number) = (known.starter.pid(), known.generation);
        let done =
            format!("process {} has started generation {number} again", found::describe(starter));
        match starts < HABIT {
            true => (again.to_vec(), format!("{done}: that is told to end")),
            false => (
                [again, &[starter]].concat(),
                format!("{done} {starts} times: it is told to end, with what it started"),
            ),
        }
    }
}

/// Whether its end would be that of a whole PID namespace.
fn ends_others(starter: &Starter) -> Result<bool, WorldError> {
    Ok(init::end_with(starter.pid())? != NamespaceEnd::Spared)
}
