//! Puts the previous generation back.

use super::{agent::Agent, troubles::Trouble, upgrade::drain_plan};
use crate::{
    api::{Begun, Problem, ProblemKind, UndoRequest},
    rollout::Event,
    service::{Endpoint, GenerationId, ServiceId},
};

impl Agent {
    /// Puts new connections back to the previous generation: the switch comes first, everything else after it.
    ///
    /// # Errors
    ///
    /// When there is none, and nothing has changed then; or when the kernel has not taken the switch, which is tried again.
    pub(super) fn undo(&mut self, selector: &str, request: &UndoRequest) -> Result<Begun, Problem> {
        let id = self.select(selector)?;
        if let Some(begun) = self.begun_by(id, request.request.as_ref()) {
            self.refuse_unswitched(id)?;
            return Ok(Begun { rollout: self.rollout_view(id, begun)?, warnings: Vec::new() });
        }
        self.refuse_half_detached(id)?;
        self.expect_generation(id, request.if_generation)?;
        let service = &self.record(id).service;
        let candidate = service.candidate().map(|candidate| candidate.number);
        let of_candidate = service.rollouts.iter().rfind(|rollout| Some(rollout.to) == candidate);
        self.refuse_deaf_target(id)?;
        let rollout = of_candidate.map_or(service.last_rollout.next(), |rollout| rollout.id);
        self.remember(id, rollout, request.request.as_ref());
        let before = self.record(id).service.endpoints.clone();
        self.feed(id, Event::Undo(drain_plan(&request.drain)))?;
        self.refuse_unswitched(id)?;
        self.refuse_deaf_primary(id)?;
        let warnings = self.lost_endpoint(id, &before)?.into_iter().collect();
        Ok(Begun { rollout: self.rollout_view(id, rollout)?, warnings })
    }

    /// One that has closed its listeners would lose what it gets, and the new connections would come back at once.
    fn refuse_deaf_target(&self, id: ServiceId) -> Result<(), Problem> {
        let service = &self.record(id).service;
        let target = service.previous().filter(|_| service.candidate().is_none());
        let Some(number) = target else { return Ok(()) };
        if self.listens(GenerationId { service: id, number })? {
            return Ok(());
        }
        let message =
            format!("nothing has changed: generation {number} listens on nothing just now");
        Err(Problem::new(ProblemKind::Preflight, message)
            .fix("upgrade to a version that works; `agent status` shows who listens"))
    }

    /// It has closed its listeners just as it was put back: the connections go on to whoever listens.
    fn refuse_deaf_primary(&self, id: ServiceId) -> Result<(), Problem> {
        let Some(number) = self.record(id).service.primary().map(|it| it.number) else {
            return Ok(());
        };
        if self.listens(GenerationId { service: id, number })? {
            return Ok(());
        }
        let message =
            format!("generation {number} was put back, and has just closed its listeners");
        Err(Problem::new(ProblemKind::Failed, message)
            .fix("new connections go to whoever listens: see `agent status`"))
    }

    /// What clients lose because an earlier generation listens on less than a later one did.
    fn lost_endpoint(&self, id: ServiceId, before: &[Endpoint]) -> Result<Option<String>, Problem> {
        let Some(number) = self.record(id).service.primary().map(|it| it.number) else {
            return Ok(None);
        };
        let lost = self.first_uncovered(GenerationId { service: id, number }, before)?;
        Ok(lost.map(|it| {
            format!("generation {number} does not listen on {it}: clients are refused there as soon as the later one ends")
        }))
    }

    /// What was decided is not done as long as the kernel leads new connections elsewhere: it is asked.
    fn refuse_unswitched(&self, id: ServiceId) -> Result<(), Problem> {
        let meant = self.record(id).service.targets().map(|it| it.primary.0);
        let steering = self.datapath.steering(id)?.map(|it| it.primary);
        if steering == meant {
            return Ok(());
        }
        let [meant, steering] = [meant, steering]
            .map(|it| it.map_or("nobody".to_owned(), |it| format!("generation {it}")));
        let message = format!("{meant} is to get the new connections, but {steering} still does");
        let mut problem = Problem::new(ProblemKind::Failed, message)
            .fix("it is tried again until it works: see `agent status`");
        problem.causes.extend(self.troubles.of(Trouble::Effect(id)).map(str::to_owned));
        Err(problem)
    }
}
