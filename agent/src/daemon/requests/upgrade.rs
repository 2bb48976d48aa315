//! Brings a new generation in, and puts the previous one back.

use agent_api::{
    Begun, Command, Problem, RequestId, SCHEMA, Unchanged, UpgradeAnswer, UpgradePreview,
    UpgradeRequest,
};
use agent_rollout::{Event, Origin, Plan, RolloutId};
use agent_terms::{GenerationId, GenerationNumber, Release, ServiceId};

use super::error::RequestError;
use crate::{
    daemon::{
        agent::Agent,
        identify::{asked::Asked, found, search::Source},
        launch::given::Given,
        looks::observe,
    },
    host::sock_diag::Listener,
};

/// A candidate, checked before anything is done.
pub(in crate::daemon) enum Candidate {
    Launch(Box<crate::host::launch::LaunchSpec>, Origin),
    Found(found::Found),
}

impl Agent {
    /// Begins an upgrade.
    ///
    /// # Errors
    ///
    /// Nothing has changed then.
    pub(in crate::daemon) fn upgrade(
        &mut self,
        selector: &str,
        request: &UpgradeRequest,
        source: Source,
        asked: Asked,
    ) -> Result<UpgradeAnswer, RequestError> {
        let id = self.select(selector)?;
        if let Some(begun) = self.begun_by(id, request.request.as_ref()) {
            return self.begun(id, begun, true, Vec::new());
        }
        self.refuse_half_detached(id)?;
        if let Some(answer) = self.unchanged_by(id, request.release.as_ref())? {
            return Ok(answer);
        }
        self.expect_generation(id, request.if_generation)?;
        if let Some(candidate) = self.record(id).service.candidate() {
            let rollout =
                self.record(id).service.rollouts().iter().rfind(|it| it.to == candidate.number());
            let rollout = rollout.map_or(self.record(id).service.last_rollout(), |it| it.id);
            return Err(agent_rollout::Refusal::RolloutUnderWay(candidate.number(), rollout).into());
        }
        let number = self.record(id).service.next_number();
        let generation = GenerationId { service: id, number };
        let mut warnings = Vec::new();
        let candidate = self.check_candidate(generation, source, &mut warnings)?;
        if !request.also {
            self.refuse_what_else_ends(id)?;
        }
        self.refuse_late_program(id)?;
        if request.dry_run {
            let preview = self.preview(generation, request, &candidate);
            return Ok(UpgradeAnswer::WouldDo(UpgradePreview { warnings, ..preview }));
        }
        self.spare_starters(id, asked);
        let plan = Plan {
            release: request.release.clone(),
            ready: request.ready,
            ready_timeout: request.ready_timeout,
            settle: request.settle,
            drain: request.drain.clone(),
        };
        self.remember(id, self.record(id).service.last_rollout().next(), request.request.as_ref());
        self.begin(generation, candidate, plan, asked)?;
        self.begun(id, self.record(id).service.last_rollout(), true, warnings)
    }

    fn begin(
        &mut self,
        generation: GenerationId,
        candidate: Candidate,
        plan: Plan,
        asked: Asked,
    ) -> Result<(), RequestError> {
        let id = generation.service;
        match candidate {
            Candidate::Launch(mut spec, origin) => {
                if let Some(error) = self.prepare_log(id)? {
                    self.note_unlogged(generation, &error);
                    spec.log = None;
                }
                self.remember_given(generation, Given::launched_with(spec.context.clone()));
                self.memories.of_mut(generation).to_launch = Some(*spec);
                let begun = self
                    .keep_to_state_share(id)
                    .map_err(RequestError::from)
                    .and_then(|()| Ok(self.feed(id, Event::Upgrade(plan, origin))?));
                if let Err(refusal) = begun {
                    self.memories.forget(generation);
                    self.record_mut(id).given.remove(&generation.number.0);
                    return Err(refusal);
                }
            }
            Candidate::Found(server) => {
                self.feed(id, Event::Upgrade(plan, Origin::Found))?;
                self.introduce_found(generation, &server);
                for warning in self.left_alone(id, &server) {
                    self.warn_of(generation, warning);
                }
                self.remember_starters(generation, &server, asked);
            }
        }
        Ok(())
    }

    fn begun(
        &self,
        id: ServiceId,
        rollout: RolloutId,
        changed: bool,
        warnings: Vec<String>,
    ) -> Result<UpgradeAnswer, RequestError> {
        let rollout = self.rollout_view(id, rollout)?;
        Ok(UpgradeAnswer::Begun(Box::new(Begun { changed, rollout, warnings })))
    }

    /// What to answer if this release is under way, or serves: a deploy that was cut off is run again.
    fn unchanged_by(
        &self,
        id: ServiceId,
        release: Option<&Release>,
    ) -> Result<Option<UpgradeAnswer>, RequestError> {
        let service = &self.record(id).service;
        let Some(release) = release else { return Ok(None) };
        let Some(newest) = service.newest_of(release) else { return Ok(None) };
        match service.rollouts().iter().rfind(|it| it.to == newest && !it.is_ended()) {
            Some(rollout) => self.begun(id, rollout.id, false, Vec::new()).map(Some),
            None => Ok(Some(UpgradeAnswer::Serves(Unchanged {
                schema: SCHEMA,
                changed: false,
                service: service.name().clone(),
                generation: newest,
                release: release.clone(),
            }))),
        }
    }

    /// The rollout that this request has begun, if its asker was not told: an agent may have been killed in between.
    pub(in crate::daemon) fn begun_by(
        &self,
        id: ServiceId,
        request: Option<&RequestId>,
    ) -> Option<RolloutId> {
        let record = self.record(id);
        let known = record.requests.iter().rfind(|(_, known)| request == Some(known));
        known
            .map(|(rollout, _)| RolloutId(*rollout))
            .filter(|it| record.service.rollout(*it).is_some())
    }

    /// Written down together with the rollout, by the same event.
    pub(in crate::daemon) fn remember(
        &mut self,
        id: ServiceId,
        rollout: RolloutId,
        request: Option<&RequestId>,
    ) {
        let record = self.record_mut(id);
        let known: Vec<_> = record.service.rollouts().iter().map(|it| it.id.0).collect();
        record.requests.retain(|rollout, _| known.contains(rollout));
        if let Some(request) = request {
            record.requests.insert(rollout.0, request.clone());
        }
    }

    pub(in crate::daemon) fn refuse_half_detached(
        &self,
        id: ServiceId,
    ) -> Result<(), RequestError> {
        let record = self.record(id);
        if record.unfinished.is_none() {
            return Ok(());
        }
        Err(RequestError::HalfDetached { service: record.service.name().clone() })
    }

    pub(in crate::daemon) fn expect_generation(
        &self,
        id: ServiceId,
        expected: Option<GenerationNumber>,
    ) -> Result<(), RequestError> {
        let Some(expected) = expected else { return Ok(()) };
        let service = &self.record(id).service;
        match service.primary() {
            Some(primary) if primary.number() == expected => Ok(()),
            Some(primary) => Err(RequestError::OtherPrimary {
                service: service.name().clone(),
                primary: primary.number(),
                expected,
            }),
            None => Err(RequestError::NoPrimary { service: service.name().clone() }),
        }
    }

    fn check_candidate(
        &self,
        generation: GenerationId,
        source: Source,
        warnings: &mut Vec<String>,
    ) -> Result<Candidate, RequestError> {
        let id = generation.service;
        let server = match source {
            Source::Launch(command) => return self.check_launch(generation, *command, warnings),
            Source::Found(server) => self.check_found(id, server?)?,
        };
        let root = server.root()?;
        warnings.extend(self.survives_beside(id, root)?);
        warnings.extend(self.user_unlike(id, root).map(|user| {
            format!("process {root} is another user's than the server before, uid {user}: so will the next ones be")
        }));
        Ok(Candidate::Found(server))
    }

    fn check_launch(
        &self,
        generation: GenerationId,
        command: Command,
        warnings: &mut Vec<String>,
    ) -> Result<Candidate, RequestError> {
        self.require_group(generation)?;
        warnings.extend(self.survives_in(generation.service, command.namespaces)?);
        let command = self.with_program(generation.service, command)?;
        let (spec, more) = self.launch_spec(generation, &command)?;
        warnings.extend(more);
        warnings.extend(self.own_names(generation));
        let origin = Origin::Launched {
            program: command.program,
            command: command.arguments,
            cgroup: self.cgroup_path(generation),
            log: self.log_path(self.record(generation.service).service.name(), generation.number),
        };
        Ok(Candidate::Launch(Box::new(spec), origin))
    }

    fn check_found(
        &self,
        id: ServiceId,
        mut server: found::Found,
    ) -> Result<found::Found, RequestError> {
        let service = &self.record(id).service;
        let ours = |listener: &Listener| {
            service
                .generations()
                .iter()
                .find(|it| it.listeners().iter().any(|known| known.cookie == listener.cookie.0))
        };
        if let Some(known) = server.listeners.iter().find_map(ours) {
            let service = service.name().clone();
            return Err(RequestError::Known { generation: known.number(), service });
        }
        if server.listeners.iter().any(|listener| listener.multipath) {
            return Err(RequestError::Multipath);
        }
        self.refuse_shared(&server, Some(id))?;
        self.keep_for_service(id, &mut server)?;
        Ok(server)
    }

    /// Of a found server's listeners those that can stand for the service's ports.
    fn keep_for_service(
        &self,
        id: ServiceId,
        server: &mut found::Found,
    ) -> Result<(), RequestError> {
        let endpoints = self.record(id).service.endpoints();
        let public = observe::ports(endpoints);
        if server.listeners.iter().any(|listener| public.contains(&listener.port)) {
            server.listeners.retain(|listener| public.contains(&listener.port));
        }
        let mut ports: Vec<_> = server.listeners.iter().map(|listener| listener.port).collect();
        ports.dedup();
        if ports.iter().any(|port| !public.contains(port)) && (public.len() > 1 || ports.len() > 1)
        {
            return Err(RequestError::WhichPort { ports, public });
        }
        let to_adopt = found::to_adopt(&server.listeners, |it| {
            if public.contains(&it.port) { it.port } else { public[0] }
        });
        match found::uncovered(endpoints, &to_adopt) {
            None => Ok(()),
            Some(missing) => {
                let listeners = server.listeners.iter();
                let places = listeners.map(|it| (found::address_of(it), it.port)).collect();
                Err(RequestError::Uncovered { places, missing: missing.clone() })
            }
        }
    }

    /// A server that was found listens already.
    fn introduce_found(&mut self, generation: GenerationId, server: &found::Found) {
        let processes = Event::ProcessesChanged(generation.number, server.processes());
        self.feed_quietly(generation.service, processes);
        let introduced = self
            .enlist(generation, server.pids.iter().copied())
            .and_then(|()| self.count_processes(generation))
            .and_then(|()| match self.generation(generation) {
                Some(_) => self.introduce(generation, &server.listeners),
                None => Ok(()),
            })
            .and_then(|()| self.remember_found(generation));
        if let Err(error) = introduced {
            let failed = Event::Failed(generation.number, Problem::from(error).to_string());
            self.feed_quietly(generation.service, failed);
        }
        // It served before it was named.
        let attributed = self.attribute_newcomers(generation.service);
        self.note_look(generation, attributed);
    }
}
