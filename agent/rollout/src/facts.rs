//! What is seen of generations and decides nothing by itself: listeners, processes, endpoints.

use agent_terms::{Endpoint, GenerationNumber, ProcessIdentity};

use super::{Effect, Listening, Service};

impl Service {
    pub(super) fn note_listeners(
        &mut self,
        number: GenerationNumber,
        listening: Listening,
    ) -> Vec<Effect> {
        if let Some(generation) = self.generation_mut(number) {
            generation.listen_by(listening);
        }
        Vec::new()
    }

    pub(super) fn note_processes(
        &mut self,
        number: GenerationNumber,
        processes: Vec<ProcessIdentity>,
    ) -> Vec<Effect> {
        if let Some(generation) = self.generation_mut(number) {
            generation.processes = processes;
        }
        Vec::new()
    }

    pub(super) fn note_endpoints(&mut self, endpoints: Vec<Endpoint>) -> Vec<Effect> {
        self.endpoints = endpoints;
        Vec::new()
    }
}
