//! Which request is answered by whom.

use agent_api::Problem;
use agent_terms::ServiceId;

use crate::daemon::{
    agent::Agent,
    control::message::{Reply, Request},
    course::End,
};

impl Agent {
    pub(in crate::daemon) fn answer(&mut self, request: Request) {
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
                send(reply, self.of_some(selector, |ids| self.flows_view(ids)));
            }
            Request::History(selector, reply) => {
                send(reply, self.of_some(selector, |ids| self.history_view(ids)));
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

    /// The same of all services where none is meant.
    fn of_some<T>(
        &self,
        selector: Option<String>,
        view: impl FnOnce(&[ServiceId]) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        view(&self.one_or_all(selector)?)
    }
}

/// Whoever asked may have gone: then nobody needs the answer. The thread that passes it on goes first: where it shares a busy
/// core with us, what we look at next would keep it waiting for a time slice, some milliseconds.
pub(in crate::daemon) fn send<T>(reply: Reply<T>, answer: Result<T, Problem>) {
    match reply.send(answer) {
        Ok(()) => std::thread::yield_now(),
        Err(_) => tracing::debug!("the asker has gone"),
    }
}
