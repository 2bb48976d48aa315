//! What the operator sees: the state, joined with what the kernel and the sockets say now.

use std::collections::HashSet;

use agent_api::{
    self, AgentView, FlowView, Flows, GenerationState, GenerationView, History, ListenerView,
    Problem, ProblemKind, RolloutView, ServiceState, ServiceView, Services, Waiting,
};
use agent_rollout::{
    Generation, Kind, Origin, Outcome, Phase, PortHold, Rollout, RolloutId, Status,
};
use agent_terms::{GenerationId, GenerationNumber, ServiceId};

use crate::{
    daemon::{
        agent::Agent,
        few::few_of,
        identify::found,
        launch::logs,
        looks::observe::owner,
        state::{clock, troubles::Trouble},
    },
    host::{
        holders,
        patience::{self, Whose},
        process,
        sock_diag::{Connection, Listener, Stage},
    },
};

/// Lines of a failed candidate's output that are shown.
const OUTPUT_LINES: usize = 20;

impl Agent {
    pub(in crate::daemon) fn agent_view(&self) -> AgentView {
        AgentView {
            schema: agent_api::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::Pid::ours().get(),
            network_namespace: self.network_namespace,
            runtime_dir: self.places.runtime_dir.clone(),
            pin_dir: self.places.pin_dir.clone(),
            cgroup: self.cgroup.directory().to_owned(),
        }
    }

    pub(in crate::daemon) fn services_view(&self) -> Result<Services, Problem> {
        let ids: Vec<_> = self.records.keys().copied().collect();
        let mut services = self.views_of(&ids)?;
        services.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Services { schema: agent_api::SCHEMA, services })
    }

    pub(in crate::daemon) fn service_view(&self, id: ServiceId) -> Result<ServiceView, Problem> {
        let mut views = self.views_of(&[id])?;
        Ok(views.remove(0))
    }

    /// By one look at the sockets, however many services there are.
    fn views_of(&self, ids: &[ServiceId]) -> Result<Vec<ServiceView>, Problem> {
        let all = self.listeners_of_all(ids)?;
        let mut waiting = self.waiting(ids, &all)?;
        let view = |id: &ServiceId| {
            let open = self.are_of(*id, &all);
            self.service_view_by(*id, open, waiting.remove(id))
        };
        ids.iter().map(view).collect()
    }

    fn service_view_by(
        &self,
        id: ServiceId,
        open: Vec<Listener>,
        waiting: Option<Waiting>,
    ) -> Result<ServiceView, Problem> {
        let service = &self.record(id).service;
        let counts = self.datapath.steer_counts(id)?;
        let generations = service.generations().iter();
        let generations =
            generations.map(|it| self.generation_view(id, it)).collect::<Result<_, _>>()?;
        let under_way: Vec<_> =
            service.rollouts().iter().filter(|rollout| !rollout.is_ended()).collect();
        let live: HashSet<_> = open.iter().map(|it| it.cookie.0).collect();
        let listens =
            |it: &Generation| it.listeners().iter().any(|listener| live.contains(&listener.cookie));
        let mut troubles = self.troubles.told(id);
        for number in service.outliving(clock::now()) {
            troubles.push(self.outlives(GenerationId { service: id, number })?);
        }
        let serving = self.serving_by(id, &open)?;
        let beside = self.beside_by(id, open)?;
        // Where steering alone leads to the primary, they get all that it leaves.
        let is_open =
            |primary: &Generation| primary.hold() == PortHold::Moved && !beside.is_empty();
        let state = match service.primary() {
            _ if !troubles.is_empty() || waiting.is_some() => ServiceState::Degraded,
            // The kernel falls back for a primary without a listener; that is not how it is meant to stay.
            Some(primary) if primary.is_deaf() || !listens(primary) => ServiceState::Degraded,
            Some(primary) if is_open(primary) => ServiceState::Degraded,
            None => ServiceState::Degraded,
            Some(_) if under_way.is_empty() => ServiceState::Steady,
            Some(_) => ServiceState::RollingOut,
        };
        Ok(ServiceView {
            name: service.name().clone(),
            endpoints: service.endpoints().to_vec(),
            state,
            steered: counts.steered,
            plain: counts.plain,
            fallback: counts.fallback,
            unreached: counts.unreached,
            moved: counts.moved,
            stranded: counts.stranded,
            generations,
            rollouts: under_way
                .into_iter()
                .map(|it| self.view_of_rollout(id, it))
                .collect::<Result<_, _>>()?,
            setback: match service.rollouts().last().filter(|it| it.is_setback()) {
                Some(last) => {
                    let view = self.view_of_rollout(id, last)?;
                    Some(RolloutView { serving: Some(serving.clone()), ..view })
                }
                None => None,
            },
            troubles,
            serving: Some(serving),
            beside,
            warnings: self.busy_starters(id),
            waiting,
        })
    }

    /// That one was killed and has not ended, and who may keep it.
    fn outlives(&self, generation: GenerationId) -> Result<String, Problem> {
        let pids = self.pids_of(generation)?;
        let left = few_of(&pids, ", ", |pid| found::describe_with_tracer(*pid));
        Ok(format!("generation {} was killed and has not ended: process {left}", generation.number))
    }

    fn generation_view(
        &self,
        id: ServiceId,
        generation: &Generation,
    ) -> Result<GenerationView, Problem> {
        let key = GenerationId { service: id, number: generation.number() };
        let pids = self.roots_first(key)?;
        let counts = self.datapath.flow_counts(key)?;
        let now = clock::now();
        let (command, log) = match generation.origin() {
            Origin::Launched { command, log, .. } => (command.clone(), Some(log.clone())),
            Origin::Found => (pids.first().map(|pid| command_of(*pid)).unwrap_or_default(), None),
        };
        Ok(GenerationView {
            number: generation.number(),
            release: generation.release().cloned(),
            state: state_of(generation.phase()),
            takes_new_connections: *generation.phase() == Phase::Primary,
            pids,
            command,
            launched: *generation.origin() != Origin::Found,
            listeners: generation.listeners().iter().map(listener_view).collect(),
            hold: generation.hold(),
            note: note_on(generation),
            new_connections: counts.opened,
            open_flows: counts.open(),
            reset_flows: counts.reset,
            age: now.since(generation.since()),
            deadline_in: deadline(generation.phase()).map(|deadline| deadline.since(now)),
            log,
        })
    }

    fn roots_first(&self, generation: GenerationId) -> Result<Vec<i32>, Problem> {
        let pids = self.pids_of(generation)?;
        let mut ordered = holders::roots(&pids)?;
        let roots: HashSet<_> = ordered.iter().copied().collect();
        ordered.extend(pids.into_iter().filter(|pid| !roots.contains(pid)));
        Ok(ordered.into_iter().map(process::Pid::get).collect())
    }

    /// One rollout by its number.
    ///
    /// # Errors
    ///
    /// When it is not remembered.
    pub(in crate::daemon) fn rollout_view(
        &self,
        id: ServiceId,
        rollout: RolloutId,
    ) -> Result<RolloutView, Problem> {
        let service = &self.record(id).service;
        let found = service.rollout(rollout).ok_or_else(|| {
            Problem::new(
                ProblemKind::NotFound,
                format!("service `{}` remembers no rollout {rollout}", service.name()),
            )
        })?;
        let view = self.view_of_rollout(id, found)?;
        let serving = if found.is_ended() { Some(self.serving(id)?) } else { None };
        Ok(RolloutView { serving, ..view })
    }

    /// The rollouts of these services, as they began.
    pub(in crate::daemon) fn history_view(&self, ids: &[ServiceId]) -> Result<History, Problem> {
        let of = |id: ServiceId| {
            let rollouts = self.record(id).service.rollouts().iter();
            rollouts.map(move |it| (id, it))
        };
        let mut all: Vec<_> = ids.iter().copied().flat_map(of).collect();
        all.sort_by_key(|(_, rollout)| rollout.began);
        let views = all.into_iter().map(|(id, it)| self.view_of_rollout(id, it));
        Ok(History { schema: agent_api::SCHEMA, rollouts: views.collect::<Result<_, _>>()? })
    }

    /// As [`Self::view_of_decided`]; of the last one only if the kernel has taken what was decided.
    fn view_of_rollout(&self, id: ServiceId, rollout: &Rollout) -> Result<RolloutView, Problem> {
        let view = self.view_of_decided(id, rollout)?;
        let is_last = rollout.id == self.record(id).service.last_rollout();
        if !(is_last && self.outstanding.has_switch(id)) {
            return Ok(view);
        }
        Ok(RolloutView {
            status: Status::MakingReady,
            switched_after: None,
            ended_after: None,
            obstacle: self.troubles.of(Trouble::Effect(id)).map(str::to_owned),
            ..view
        })
    }

    fn view_of_decided(&self, id: ServiceId, rollout: &Rollout) -> Result<RolloutView, Problem> {
        let service = &self.record(id).service;
        let replaced = GenerationId { service: id, number: rollout.from };
        let leaving = service.generation(rollout.from).filter(|_| !rollout.is_ended());
        let flows_left = match leaving {
            Some(_) => {
                let counts = self.datapath.flow_counts(replaced)?;
                Some(counts.open())
            }
            None => None,
        };
        let now = clock::now();
        let waiting = match rollout.status {
            Status::MakingReady => service.generation(rollout.to),
            Status::Settling | Status::Draining | Status::Ended(_) => leaving,
        };
        Ok(RolloutView {
            schema: agent_api::SCHEMA,
            service: service.name().clone(),
            id: rollout.id,
            kind: rollout.kind,
            from: rollout.from,
            to: rollout.to,
            release: rollout.release.clone(),
            status: rollout.status.clone(),
            began: clock::wall_at(rollout.began),
            switched_after: rollout.switched.map(|at| at.since(rollout.began)),
            ended_after: rollout.ended.map(|at| at.since(rollout.began)),
            listens: matches!(
                service.generation(rollout.to).map(|it| it.phase()),
                Some(Phase::Starting { listens: true, .. })
            ),
            obstacle: match service.generation(rollout.to).map(|it| it.phase()) {
                Some(Phase::Starting { obstacle, .. }) => obstacle.clone(),
                Some(_) | None => None,
            },
            can_go_back: service.generation(rollout.from).is_some_and(Generation::can_take_over),
            settles_in: rollout
                .settled
                .filter(|_| rollout.status == Status::Settling)
                .map(|it| it.since(now)),
            flows_left,
            idle: self.seen_flows(replaced).filter(|it| it.open > 0).map(|it| it.idle),
            deadline_in: waiting.and_then(|it| deadline(it.phase())).map(|it| it.since(now)),
            waited: rollout.waited,
            standby_for: match service.generation(rollout.from).map(|it| it.phase()) {
                Some(Phase::Standby { until, .. }) => Some(until.since(now)),
                Some(_) | None => None,
            },
            serving: None,
            log: (rollout.kind == Kind::Upgrade)
                .then(|| self.log_path(service.name(), rollout.to))
                .filter(|path| path.exists()),
            output: self.output_of(id, rollout),
        })
    }

    /// The last lines that a failed candidate wrote: the reason is usually there.
    fn output_of(&self, id: ServiceId, rollout: &Rollout) -> Vec<String> {
        let failed = matches!(
            rollout.status,
            Status::Ended(Outcome::NotReady { .. } | Outcome::RolledBack { .. })
        );
        if !failed || rollout.kind != Kind::Upgrade {
            return Vec::new();
        }
        let path = self.log_path(self.record(id).service.name(), rollout.to);
        let read = move || logs::last_lines(&path, OUTPUT_LINES);
        patience::with(Whose::Output(id.0), read).unwrap_or_else(|error| vec![error.to_string()])
    }

    /// The flows of these services, by one look.
    pub(in crate::daemon) fn flows_view(&self, ids: &[ServiceId]) -> Result<Flows, Problem> {
        let all = self.flows_of_all(ids)?;
        let mut flows = Vec::new();
        for id in ids {
            let service = &self.record(*id).service;
            let of_it = |flow: &&Connection| self.is_shown(*id, flow);
            let mut shown: Vec<_> = all
                .iter()
                .filter(of_it)
                .map(|flow| FlowView {
                    service: service.name().clone(),
                    generation: owner(flow)
                        .filter(|key| key.service == id.0)
                        .map(|key| GenerationNumber(key.generation)),
                    remote: flow.remote,
                    local: flow.local,
                    state: flow.state.to_string(),
                    accepted: flow.stage() != Stage::Queued,
                    idle: flow.idle,
                })
                .collect();
            shown.sort_by_key(|flow| (flow.generation, flow.remote));
            flows.extend(shown);
        }
        Ok(Flows { schema: agent_api::SCHEMA, flows })
    }

    /// Whether a connection is of a service, or nobody's on one of its ports. On a generation's own port others may have
    /// connections too.
    fn is_shown(&self, id: ServiceId, flow: &Connection) -> bool {
        let endpoints = self.record(id).service.endpoints();
        match owner(flow) {
            Some(owner) => owner.service == id.0,
            None => endpoints.iter().any(|it| it.contains(flow.local)),
        }
    }
}

pub(in crate::daemon) fn listener_view(listener: &agent_rollout::ListenerRecord) -> ListenerView {
    ListenerView { bound: listener.bound, cookie: listener.cookie }
}

fn command_of(pid: i32) -> Vec<String> {
    let command =
        process::Pid::new(pid).and_then(|pid| process::command_line(pid).ok()).unwrap_or_default();
    command.iter().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
}

fn note_on(generation: &Generation) -> Option<String> {
    match generation.hold() {
        PortHold::Plain => Some(
            "listens with Multipath TCP, which nobody can steer to: reached by the kernel's own lookup; \
             the next generation gets a moved port"
                .to_owned(),
        ),
        PortHold::Moved if generation.is_reached_by_steering_alone() => Some(
            "listens on a moved port: only steering leads to it, so the agent cannot be detached until another \
             generation binds the public port"
                .to_owned(),
        ),
        PortHold::Moved | PortHold::Shared | PortHold::Unbound => None,
    }
}

pub(in crate::daemon) const fn state_of(phase: &Phase) -> GenerationState {
    match phase {
        Phase::Starting { .. } => GenerationState::Starting,
        Phase::Primary => GenerationState::Primary,
        Phase::Dead => GenerationState::Dead,
        Phase::Clearing { .. } => GenerationState::Clearing,
        Phase::Draining { .. } => GenerationState::Draining,
        Phase::Standby { .. } => GenerationState::Standby,
        Phase::Parting { .. } => GenerationState::Parting,
        Phase::Finishing { .. } => GenerationState::Finishing,
        Phase::Stopping { .. } => GenerationState::Stopping,
    }
}

const fn deadline(phase: &Phase) -> Option<agent_rollout::Timestamp> {
    match phase {
        Phase::Starting { ready_by, .. } => Some(*ready_by),
        Phase::Clearing { until, .. }
        | Phase::Standby { until, .. }
        | Phase::Parting { until, .. } => Some(*until),
        Phase::Draining { deadline, .. } | Phase::Finishing { deadline, .. } => Some(*deadline),
        Phase::Stopping { stop, .. } => Some(stop.deadline()),
        Phase::Primary | Phase::Dead => None,
    }
}
