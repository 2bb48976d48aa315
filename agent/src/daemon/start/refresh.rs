//! Writes again what the state says into maps that are used as they are: somebody may have changed what is in them.
//!
//! Nothing that steers rightly is touched by it. What no agent leaves out has been looked for before (`start/contents`): here
//! it is what may be wrong and can be written over, without losing what was counted.

use agent_api::{EventKind, Problem};
use agent_rollout::{Generation, Phase, Service};
use agent_terms::{GenerationId, ServiceId};

use super::build::served;
use crate::{
    daemon::{
        agent::Agent,
        step::{Step, change},
    },
    host::sock_diag::{self, Listener},
};

impl Agent {
    /// Does it for all services.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub(in crate::daemon) fn refresh(&mut self) -> Result<(), Problem> {
        let listeners = sock_diag::listeners()?;
        let whole = self.records.iter().filter(|(_, record)| record.unfinished.is_none());
        for id in whole.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.refresh_service(id, &listeners)?;
        }
        let services = self.records.iter().map(|(id, record)| (*id, record.service.endpoints()));
        if !self.datapath.has_endpoints(services)? {
            self.set_endpoints()?;
            let message =
                "`ENDPOINTS` did not have exactly what the state says: it was written anew";
            self.journal.note_agent(EventKind::Warning, message.to_owned());
        }
        Ok(())
    }

    fn refresh_service(&mut self, id: ServiceId, listeners: &[Listener]) -> Result<(), Problem> {
        let (service, uid) = (self.record(id).service.clone(), self.record(id).context.uid);
        for generation in service.generations() {
            if generation.can_serve() {
                self.refresh_listeners(&service, generation, listeners)?;
            }
            if generation.can_serve() || matches!(generation.phase(), Phase::Starting { .. }) {
                let key = GenerationId { service: id, number: generation.number() };
                self.describe_binds(key, generation, uid)?;
            }
        }
        if !change(Step::Steer, || Ok(self.datapath.tidy_steering(id)?))? {
            self.warn_of_map(&service, "SERVICES");
        }
        Ok(())
    }

    fn refresh_listeners(
        &mut self,
        service: &Service,
        generation: &Generation,
        listeners: &[Listener],
    ) -> Result<(), Problem> {
        let theirs = listeners
            .iter()
            .filter(|it| generation.listeners().iter().any(|known| known.cookie == it.cookie.0));
        let (endpoints, to_adopt) =
            served(service, generation, &theirs.cloned().collect::<Vec<_>>());
        let key = GenerationId { service: service.id(), number: generation.number() };
        let made_sense = change(Step::TakeOverListeners, || {
            let made_sense = self.datapath.place_again(key, &endpoints, &to_adopt)?;
            if !made_sense {
                self.datapath.adopt_listeners(key, &endpoints, &to_adopt)?;
            }
            Ok(made_sense)
        })?;
        if !made_sense {
            self.warn_of_map(service, "LISTENER_SETS");
        }
        Ok(())
    }

    fn warn_of_map(&mut self, service: &Service, map: &str) {
        let message = format!("`{map}` did not have what the state says: it was written anew");
        self.journal.note(service.name(), None, EventKind::Warning, message);
    }
}
