//! Puts the previous generation back.

use agent_api::{Begun, UndoRequest};
use agent_rollout::Event;
use agent_terms::{Endpoint, GenerationId, GenerationNumber, Release, ServiceId};

use super::error::RequestError;
use crate::{
    daemon::{agent::Agent, state::troubles::Trouble, world_error::WorldError},
    host::process,
};

impl Agent {
    /// Puts new connections back to the previous generation: the switch comes first, everything else after it.
    ///
    /// # Errors
    ///
    /// When there is none, and nothing has changed then; or when the kernel has not taken the switch, which is tried again.
    pub(in crate::daemon) fn undo(
        &mut self,
        selector: &str,
        request: &UndoRequest,
    ) -> Result<Begun, RequestError> {
        let id = self.select(selector)?;
        if let Some(begun) = self.begun_by(id, request.request.as_ref()) {
            self.refuse_unswitched(id)?;
            return Ok(Begun {
                changed: true,
                rollout: self.rollout_view(id, begun)?,
                warnings: Vec::new(),
            });
        }
        self.refuse_half_detached(id)?;
        self.expect_generation(id, request.if_generation)?;
        self.expect_release(id, request.if_release.as_ref())?;
        let service = &self.record(id).service;
        let candidate = service.candidate().map(|candidate| candidate.number());
        let of_candidate = service.rollouts().iter().rfind(|rollout| Some(rollout.to) == candidate);
        let target = service.previous().filter(|_| candidate.is_none());
        self.refuse_deaf(id, target, |generation| RequestError::Deaf { generation })?;
        self.refuse_stopped(id, target)?;
        let rollout = of_candidate.map_or(service.last_rollout().next(), |rollout| rollout.id);
        self.remember(id, rollout, request.request.as_ref());
        let before = self.record(id).service.endpoints().to_vec();
        self.feed(id, Event::Undo(request.drain.clone()))?;
        self.refuse_unswitched(id)?;
        self.refuse_deaf(id, target, |generation| RequestError::DeafSince { generation })?;
        let warnings = self.lost_endpoint(id, &before)?.into_iter().collect();
        Ok(Begun { changed: true, rollout: self.rollout_view(id, rollout)?, warnings })
    }

    /// What would be taken back has to be that release.
    fn expect_release(
        &self,
        id: ServiceId,
        expected: Option<&Release>,
    ) -> Result<(), RequestError> {
        let Some(expected) = expected else { return Ok(()) };
        let service = &self.record(id).service;
        let Some(newest) = service.candidate().or_else(|| service.primary()) else {
            return Ok(());
        };
        if newest.release() == Some(expected) {
            return Ok(());
        }
        Err(RequestError::OtherRelease {
            service: service.name().clone(),
            generation: newest.number(),
            release: newest.release().cloned(),
            expected: expected.clone(),
        })
    }

    /// One that listens on nothing would lose what it gets, or has lost it: the new connections are those of whoever listens.
    fn refuse_deaf(
        &self,
        id: ServiceId,
        target: Option<GenerationNumber>,
        refusal: impl FnOnce(GenerationNumber) -> RequestError,
    ) -> Result<(), RequestError> {
        let Some(number) = target else { return Ok(()) };
        match self.listens(GenerationId { service: id, number })? {
            true => Ok(()),
            false => Err(refusal(number)),
        }
    }

    /// One that was stopped (`SIGSTOP`) listens, and accepts nothing.
    fn refuse_stopped(
        &self,
        id: ServiceId,
        target: Option<GenerationNumber>,
    ) -> Result<(), RequestError> {
        let Some(number) = target else { return Ok(()) };
        let pids = self.pids_of(GenerationId { service: id, number })?;
        if pids.is_empty() || !pids.iter().all(|pid| process::is_stopped(*pid)) {
            return Ok(());
        }
        Err(RequestError::Stopped { generation: number, pids })
    }

    /// What clients lose because an earlier generation listens on less than a later one did.
    fn lost_endpoint(
        &self,
        id: ServiceId,
        before: &[Endpoint],
    ) -> Result<Option<String>, WorldError> {
        let Some(number) = self.record(id).service.primary().map(|it| it.number()) else {
            return Ok(None);
        };
        let lost = self.first_uncovered(GenerationId { service: id, number }, before)?;
        Ok(lost.map(|it| {
            format!("generation {number} does not listen on {it}: clients are refused there as soon as the later one ends")
        }))
    }

    /// What was decided is not done as long as the kernel leads new connections elsewhere: it is asked.
    fn refuse_unswitched(&self, id: ServiceId) -> Result<(), RequestError> {
        let meant = self.record(id).service.targets().map(|it| it.primary.0);
        let steering = self.datapath.steering(id)?.map(|it| it.primary);
        if steering == meant {
            return Ok(());
        }
        let trouble = self.troubles.of(Trouble::Effect(id)).map(str::to_owned);
        Err(RequestError::Unswitched { meant, steering, trouble })
    }
}
