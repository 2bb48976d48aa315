//! What is due when although nothing happens.

use std::time::Instant;

use super::{
    agent::{Agent, RETRY},
    state::{clock, state_file::Record},
};

impl Agent {
    /// When something must be done although nothing happens. `None` while all is steady: then the agent sleeps.
    pub(super) fn next_wake(&self) -> Option<Instant> {
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

    /// Does what is due.
    pub(super) fn keep_time(&mut self) {
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
}
