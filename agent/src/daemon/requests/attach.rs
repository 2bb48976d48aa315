//! Takes charge of a port that a server serves.

use std::collections::BTreeMap;

use agent_api::{AttachRequest, Attached, EventKind, Problem};
use agent_rollout::{Effect, Generation, Listening, Origin, Phase, Service};
use agent_terms::{GenerationId, GenerationNumber, ServiceId, ServiceName};

use super::error::RequestError;
use crate::{
    daemon::{
        agent::Agent,
        identify::{asked::Asked, error::IdentifyError, found},
        looks::observe,
        state::{
            clock,
            state_file::{Record, Unfinished},
        },
        step::{Step, take},
        world_error::WorldError,
    },
    host::{process, sock_diag::Listener},
};

impl Agent {
    /// Attaches; attaching what is attached changes nothing.
    ///
    /// Everything is prepared before the endpoints are set, which is when the kernel begins to ask us. Until then, and
    /// if any step fails, connections go as they always did.
    ///
    /// # Errors
    ///
    /// When the server was not found, or cannot be taken charge of. Nothing has changed then.
    pub(in crate::daemon) fn attach(
        &mut self,
        request: &AttachRequest,
        server: Result<found::Found, IdentifyError>,
        asked: Asked,
    ) -> Result<Attached, RequestError> {
        if let Some(attached) = self.already_attached(request)? {
            return Ok(attached);
        }
        let server = server?;
        let name = self.name_for(request, server.root()?)?;
        let id = self.free_id()?;
        self.refuse_shared(&server, None)?;
        self.refuse_other_agent(&found::endpoints(&server.listeners))?;
        let first = GenerationId { service: id, number: GenerationNumber(1) };
        self.remember_server(first, &name, &server)?;
        if let Err(error) = self.take_charge(id, &server) {
            self.withdraw(id);
            return Err(error);
        }
        self.remember_starters(first, &server, asked);
        let message = format!("attached to {name}");
        self.journal.note(&name, Some(first.number), EventKind::Attached, message);
        let mut warnings = self.warnings(id, &server);
        warnings.extend(request.address.and_then(|wanted| covered(wanted, &server.listeners)));
        Ok(Attached {
            schema: agent_api::SCHEMA,
            changed: true,
            service: self.service_view(id)?,
            warnings,
        })
    }

    /// Writes down that a server is taken charge of, before anything of it is touched.
    fn remember_server(
        &mut self,
        generation: GenerationId,
        name: &ServiceName,
        server: &found::Found,
    ) -> Result<(), RequestError> {
        let id = generation.service;
        let root = server.root()?;
        let endpoints = found::endpoints(&server.listeners);
        let listening = Listening {
            hold: found::hold(&server.listeners, |listener| listener.port),
            listeners: found::records(&server.listeners, |listener| listener.port),
        };
        let now = clock::now();
        let first = Generation::new(generation.number, Phase::Primary, Origin::Found, now)
            .found(listening, server.processes());
        let given = self.found(root, &first, &server.pids)?;
        let origin_cgroup = self.hierarchy.of(root).map_err(RequestError::Group)?;
        let record = Record {
            service: Service::attached(id, name.clone(), endpoints, first),
            context: given.passed_on().context,
            mark: None,
            origin_cgroup: origin_cgroup.directory().into(),
            unfinished: Some(Unfinished::Attach),
            requests: BTreeMap::new(),
            given: BTreeMap::new(),
            kept_names: Vec::new(),
            starters: Vec::new(),
        };
        self.records.insert(id, record);
        self.remember_given(generation, given);
        if let Err(refused) = self.keep_to_state_share(id) {
            self.records.remove(&id);
            return Err(refused.into());
        }
        if let Err(error) = self.save() {
            self.records.remove(&id);
            self.let_go_of_ports(id);
            return Err(WorldError::Unsaved(Box::new(error)).into());
        }
        Ok(())
    }

    fn already_attached(&self, request: &AttachRequest) -> Result<Option<Attached>, RequestError> {
        let matches = |record: &&Record| {
            let ports = observe::ports(record.service.endpoints());
            let at =
                |address| record.service.endpoints().iter().any(|it| it.address.contains(address));
            request.ports.iter().any(|port| ports.contains(port)) && request.address.is_none_or(at)
        };
        let Some(record) = self.records.values().find(matches) else { return Ok(None) };
        let ports = observe::ports(record.service.endpoints());
        if let Some(name) = request.name.as_ref().filter(|name| **name != *record.service.name()) {
            let service = record.service.name().clone();
            return Err(RequestError::OtherName { service, name: name.clone() });
        }
        if let Some(port) = request.ports.iter().find(|port| !ports.contains(port)) {
            let service = record.service.name().clone();
            return Err(RequestError::OtherPorts { service, port: *port });
        }
        if let Some(pid) = request.pid
            && !self.has_process(record.service.id(), pid)?
        {
            let service = record.service.name().clone();
            return Err(RequestError::OtherServer { service, pid });
        }
        let service = self.service_view(record.service.id())?;
        Ok(Some(Attached {
            schema: agent_api::SCHEMA,
            changed: false,
            service,
            warnings: Vec::new(),
        }))
    }

    /// In this order, when it is written down what is begun: tag (so that what is accepted from now on is counted), count what is open,
    /// steer, and only then let the kernel ask. Steered connections pass by the socket that `guard_queues` uses.
    fn take_charge(&mut self, id: ServiceId, server: &found::Found) -> Result<(), RequestError> {
        let generation = GenerationId { service: id, number: GenerationNumber(1) };
        let endpoints = self.record(id).service.endpoints().to_vec();
        self.refuse_own_program(&server.listeners)?;
        self.enlist(generation, server.pids.iter().copied())?;
        let to_adopt = found::to_adopt(&server.listeners, |listener| listener.port);
        take(Step::TakeOverListeners, || {
            Ok(self.datapath.adopt_listeners(generation, &endpoints, &to_adopt)?)
        })?;
        self.datapath.count_flows_of(generation)?;
        // A second look finds those that became established while the first one was made.
        for _look in 0..2 {
            self.attribute_flows(id)?;
        }
        self.count_processes(generation)?;
        if let Some(targets) = self.record(id).service.targets() {
            self.execute(id, &Effect::Steer(targets))?;
        }
        self.set_endpoints()?;
        self.remember_mark(generation);
        self.guard_queues(id);
        self.record_mut(id).unfinished = None;
        self.save_or_owe();
        Ok(())
    }

    pub(in crate::daemon) fn set_endpoints(&mut self) -> Result<(), WorldError> {
        let services = self.records.iter().map(|(id, record)| (*id, record.service.endpoints()));
        take(Step::SetEndpoints, || Ok(self.datapath.set_endpoints(services)?))
    }

    /// Takes back an attach that failed half-way.
    fn withdraw(&mut self, id: ServiceId) {
        let name = self.record(id).service.name().clone();
        if let Err(error) = self.release(id) {
            let problem = Problem::from(error);
            self.journal.note(
                &name,
                None,
                EventKind::Warning,
                format!("could not take back the attach: {problem}"),
            );
        }
    }

    fn name_for(
        &self,
        request: &AttachRequest,
        root: process::Pid,
    ) -> Result<ServiceName, RequestError> {
        if let Some(name) = &request.name {
            return match self.records.values().find(|record| *record.service.name() == *name) {
                None => Ok(name.clone()),
                Some(_) => Err(RequestError::NameTaken { name: name.clone() }),
            };
        }
        let port = request.ports.first().copied().unwrap_or_default();
        Ok(found::name_of(root, port)?)
    }

    fn free_id(&self) -> Result<ServiceId, RequestError> {
        (1..agent_ebpf::MAX_SERVICES)
            .map(ServiceId)
            .find(|id| !self.records.contains_key(id))
            .ok_or(RequestError::Full)
    }
}

/// That more was attached than the address that was asked for.
fn covered(wanted: std::net::IpAddr, listeners: &[Listener]) -> Option<String> {
    let more = |it: &&Listener| it.address != wanted;
    let place = |it: &Listener| format!("{}:{}", found::address_of(it), it.port);
    listeners.iter().find(more).map(|it| {
        format!(
            "the server listens on {}, of which {wanted} is a part: all of it was attached, because one listener has it",
            place(it)
        )
    })
}
