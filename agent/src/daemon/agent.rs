//! The single writer: takes one message after the other, and makes the world follow.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use agent_api::{Problem, ProblemKind};
use agent_rollout::{Generation, Timestamp};
use agent_terms::{GenerationId, ServiceId};
use tokio::sync::watch;

use super::{
    control::message::{Inbox, Message, Reply, Request},
    course::{Course, End},
    effects::{held_ports::HeldPorts, moves::Moves, outstanding::Outstanding},
    launch::groups::Groups,
    looks::{returns::Returns, strangers::Strangers},
    memory::Memories,
    start::presence::Presence,
    state::{
        above::Above,
        clock,
        journal::Journal,
        state_file::{Record, StateFile},
        troubles::{Trouble, Troubles},
    },
    step::{Step, take},
    watch::watcher::Watcher,
    world_error::WorldError,
};
use crate::{
    datapath::Datapath,
    host::{
        cgroup::{Cgroup, Hierarchy},
        launch::Launcher,
    },
    places::Places,
};

/// Everything the agent knows. Owned by its thread.
pub(super) struct Agent {
    pub(super) places: Places,
    /// What was made above those.
    pub(super) above: Above,
    pub(super) network_namespace: u64,
    pub(super) boot_id: String,
    /// When this agent began: what the kernel programs before its own have missed, it cannot know.
    pub(super) began: Timestamp,
    pub(super) presence: Presence,
    pub(super) hierarchy: Hierarchy,
    /// Holds one cgroup for each launched generation, of other agents too.
    pub(super) cgroup: Cgroup,
    /// Which of those are ours.
    pub(super) groups: Groups,
    /// The cgroups of generations that their services do not know any more, until they are removed.
    pub(super) former_groups: HashMap<GenerationId, PathBuf>,
    pub(super) datapath: Datapath,
    pub(super) records: BTreeMap<ServiceId, Record>,
    pub(super) watcher: Arc<Watcher>,
    pub(super) launcher: Arc<Launcher>,
    pub(super) journal: Journal,
    pub(super) troubles: Troubles,
    /// Counts changes, for whoever follows a rollout.
    pub(super) changes: watch::Sender<u64>,
    /// What is known of each generation besides the records.
    pub(super) memories: Memories,
    /// What was decided and is not done yet.
    pub(super) outstanding: Outstanding,
    /// When to look at what servers have written.
    pub(super) next_log_look: Option<Instant>,
    /// Listeners on our ports that are nobody's.
    pub(super) strangers: Strangers,
    /// Services of which a server may just be started again.
    pub(super) returns: Returns,
    /// Until when a listener that appears is not looked at.
    pub(super) listeners_rest: Instant,
    /// How many SYN cookies had been sent when we last looked.
    pub(super) cookies_sent: u64,
    /// How long the last count of flows took.
    pub(super) count_cost: Duration,
    /// Connections that the kernel moved from closed listeners.
    pub(super) moves: HashMap<ServiceId, Moves>,
    /// Public ports of servers that listen elsewhere.
    pub(super) held_ports: BTreeMap<ServiceId, HeldPorts>,
    /// Services with connections that nobody has been found to have, because the kernel maps were built anew.
    pub(super) unattributed: HashSet<ServiceId>,
    pub(super) course: Course,
}

/// How long a failed effect waits for its next try.
pub(super) const RETRY: Duration = Duration::from_secs(1);

impl Agent {
    /// Runs until told to stop, or until the last service is detached. Says whether anything is left to steer.
    pub(super) fn run(mut self, queue: &Receiver<Message>) -> Result<(), Problem> {
        let mut inbox = Inbox::of(queue);
        loop {
            match inbox.take(self.next_wake()) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.keep_time();
            if self.course.is_over() {
                break;
            }
        }
        self.end()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Request(request) => self.answer(request),
            Message::Kernel(event) => self.note_kernel(event),
            Message::ReportsLost(count) => self.note_lost_reports(count),
            Message::ProcessEnded(generation, ending) => {
                self.note_process_ended(generation, ending);
            }
            Message::ProbeAnswered(generation) => self.look_at_probe(generation),
            Message::LaunchReported(generation) => self.look_at_launch(generation),
            Message::CgroupEmptied(generation) => self.note_cgroup_emptied(generation),
            // What was attached before is minded, whoever goes.
            Message::AskerGone if self.records.is_empty() => self.course.end_with(End::Forsaken),
            Message::AskerGone => {}
            Message::LauncherGone => self.course.end_with(End::Bereft),
            Message::Removed => self.mend(),
            Message::LogWritten => self.note_log_written(),
            Message::Stop => {}
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Attach(request, server, asked, reply) => {
                match self.attach(&request, server, asked) {
                    // Started for this alone, and in vain.
                    Err(refusal) if self.course.ends_with_last() && self.records.is_empty() => {
                        self.course.end_with(End::InVain(reply, refusal.into()));
                    }
                    answer => send(reply, answer.map_err(Problem::from)),
                }
            }
            Request::Detach(selector, reply) => match self.detach(&selector) {
                Ok(answer) if answer.last && self.course.ends_with_last() => {
                    self.course.end_with(End::WithLast(reply, answer));
                }
                answer => send(reply, answer.map_err(Problem::from)),
            },
            Request::Upgrade(selector, request, source, asked, reply) => {
                let answer = self.upgrade(&selector, &request, source, asked);
                send(reply, answer.map_err(Problem::from));
            }
            Request::Undo(selector, request, reply) => {
                send(reply, self.undo(&selector, &request).map_err(Problem::from));
            }
            Request::Agent(reply) => send(reply, Ok(self.agent_view())),
            Request::Services(reply) => send(reply, self.services_view()),
            Request::Service(selector, reply) => {
                send(reply, self.of_service(&selector, |id| self.service_view(id)));
            }
            Request::Flows(selector, reply) => {
                send(reply, self.of_service(&selector, |id| self.flows_view(id)));
            }
            Request::History(selector, reply) => {
                send(reply, self.of_service(&selector, |id| self.history_view(id)));
            }
            Request::Rollout(selector, rollout, reply) => {
                send(reply, self.of_service(&selector, |id| self.rollout_view(id, rollout)));
            }
            Request::Explain(local, remote, reply) => send(reply, self.explain(local, remote)),
            Request::Events(reply) => {
                let events =
                    agent_api::Events { schema: agent_api::SCHEMA, events: self.journal.last() };
                send(reply, Ok((events, self.journal.follow())));
            }
        }
    }

    /// What is asked for of the service that is meant.
    fn of_service<T>(
        &self,
        selector: &str,
        view: impl FnOnce(ServiceId) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        view(self.select(selector)?)
    }

    pub(super) fn record(&self, id: ServiceId) -> &Record {
        self.records
            .get(&id)
            .expect("ids come from `select` or from the records themselves, within one message")
    }

    pub(super) fn record_if_any(&self, id: ServiceId) -> Option<&Record> {
        self.records.get(&id)
    }

    pub(super) fn generation(&self, id: GenerationId) -> Option<&Generation> {
        self.records.get(&id.service)?.service.generation(id.number)
    }

    pub(super) fn record_mut(&mut self, id: ServiceId) -> &mut Record {
        self.records
            .get_mut(&id)
            .expect("ids come from `select` or from the records themselves, within one message")
    }

    /// Lets a service know what happened, writes the new state down, and then makes the world follow.
    ///
    /// # Errors
    ///
    /// Refuses a request that cannot be done or whose state cannot be written down: nothing has changed then. What has
    /// happened is never refused; see [`Self::save_or_owe`].
    pub(super) fn feed(
        &mut self,
        id: ServiceId,
        event: agent_rollout::Event,
    ) -> Result<(), WorldError> {
        let Some(record) = self.records.get_mut(&id) else { return Ok(()) };
        let before = record.service.clone();
        let can_be_refused = event.can_be_refused();
        let effects = record.service.apply(event, clock::now())?;
        if record.service != before {
            if !can_be_refused {
                self.save_or_owe();
            } else if let Err(error) = self.save() {
                self.record_mut(id).service = before;
                return Err(WorldError::Unsaved(Box::new(error)));
            }
            self.note_changes(id, &before);
        }
        if !before.may_take_in() && self.record(id).service.may_take_in() {
            self.strangers.look_at(id, Instant::now());
        }
        self.outstanding.add(id, effects);
        self.finish_effects_of(id);
        self.hold_ports(id);
        self.remember_mark_of_another(id, &before);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// As [`Self::feed`], where nobody waits for the answer.
    pub(super) fn feed_quietly(&mut self, id: ServiceId, event: agent_rollout::Event) {
        if let Err(error) = self.feed(id, event) {
            let problem = Problem::from(error);
            tracing::error!(%problem, causes = ?problem.causes, "an event was not taken");
        }
    }

    /// Writes the state down.
    ///
    /// # Errors
    ///
    /// When the file system refuses; the old state stays.
    pub(super) fn save(&mut self) -> Result<(), WorldError> {
        let state = StateFile {
            network_namespace: self.network_namespace,
            boot_id: self.boot_id.clone(),
            services: self.records.values().cloned().collect(),
            exit_when_detached: self.course.ends_with_last(),
        };
        take(Step::WriteState, || Ok(state.write(&self.places.state_file())?))?;
        self.over(Trouble::Unsaved, "the state is written down again");
        Ok(())
    }

    /// Writes the state down, or goes on with it in memory and tries again: the world does not wait for a disk. Until then
    /// only that is done which can be taken back, because an agent that starts meanwhile knows the old state only.
    pub(super) fn save_or_owe(&mut self) {
        if let Err(problem) = self.save() {
            let message = format!(
                "nothing is launched or ended until the state is saved: {}",
                problem.in_full()
            );
            self.trouble(Trouble::Unsaved, message);
        }
    }

    /// When something must be done although nothing happens. `None` while all is steady: then the agent sleeps.
    fn next_wake(&self) -> Option<Instant> {
        let now = clock::now();
        let deadline = |record: &Record| record.service.next_deadline();
        let deadlines =
            self.records.values().filter_map(deadline).map(|at| Instant::now() + at.since(now));
        let retry = (!self.outstanding.is_empty()).then(|| Instant::now() + RETRY);
        let trouble = self.troubles.retry();
        let looks = self.memories.times(|it| it.next_look).map(|(_, at)| at);
        let looks = looks.chain(self.strangers.next_look());
        let recounts = self.memories.times(|it| it.next_count).map(|(_, at)| at);
        let asked = self.next_probe_look().into_iter().chain(self.next_backlog_look());
        let returns = self.returns.next_look();
        let launches = self.next_launch_look();
        deadlines
            .chain(looks)
            .chain(asked)
            .chain(returns)
            .chain(launches)
            .chain(recounts)
            .chain(self.next_nudge())
            .chain(retry)
            .chain(trouble)
            .chain(self.next_log_look)
            .chain(self.journal.next_untold())
            .min()
    }

    fn keep_time(&mut self) {
        let now = clock::now();
        let due = |record: &Record| {
            record.service.next_deadline().is_some_and(|deadline| deadline <= now)
        };
        let due: Vec<_> =
            self.records.iter().filter(|(_, record)| due(record)).map(|(id, _)| *id).collect();
        for id in due {
            self.feed_quietly(id, agent_rollout::Event::Tick);
        }
        self.look_at_launches_where_due();
        self.count_again_where_due();
        self.look_where_due();
        self.look_for_successors_where_due();
        self.look_for_returns_where_due();
        self.look_at_probes_where_due();
        self.look_at_backlogs_where_due();
        self.nudge_where_due();
        self.retry_where_due();
        self.look_at_logs_where_due();
        self.journal.tell_untold();
        self.finish_effects();
    }

    /// Answers whoever waits for the end.
    fn end(mut self) -> Result<(), Problem> {
        let takes_log_along = self.course.ends_with_last();
        match self.course.take_end() {
            Some(End::GivesWay(why)) => Err(why),
            Some(End::Bereft) => self.leave(false).and(Err(launcher_gone())),
            Some(End::Forsaken) => {
                tracing::info!("nobody is there any more who wanted to attach something");
                self.leave(takes_log_along)
            }
            // Who was refused takes back the log that it made, and nothing else.
            Some(End::InVain(reply, refusal)) => {
                let left = self.leave(false);
                send(reply, Err(refusal));
                left
            }
            Some(End::WithLast(reply, answer)) => {
                let left = self.leave(takes_log_along);
                send(reply, left.clone().map(|()| answer));
                left
            }
            None => self.leave(takes_log_along),
        }
    }

    /// Leaves steering as it is, or, with nothing to steer, no trace.
    fn leave(self, takes_log_along: bool) -> Result<(), Problem> {
        if let Err(error) = self.launcher.end() {
            tracing::warn!(%error, "cannot wait for the end of the launcher");
        }
        if !self.records.is_empty() {
            tracing::info!(services = self.records.len(), "ending; steering goes on in the kernel");
            return Ok(());
        }
        tracing::info!("ending; nothing is attached, so nothing stays behind");
        Ok(self.leave_no_trace(takes_log_along)?)
    }
}

fn launcher_gone() -> Problem {
    let message = "the process that starts servers for the agent (agent-launcher) is gone";
    Problem::new(ProblemKind::Failed, message).fix("start the agent again: it goes on where it was")
}

/// Whoever asked may have gone: then nobody needs the answer. The thread that passes it on goes first: where it shares a busy
/// core with us, what we look at next would keep it waiting for a time slice, some milliseconds.
fn send<T>(reply: Reply<T>, answer: Result<T, Problem>) {
    match reply.send(answer) {
        Ok(()) => std::thread::yield_now(),
        Err(_) => tracing::debug!("the asker has gone"),
    }
}
