//! The way back of processes, to the control group in which those of their service were first.

use std::path::Path;

use agent_api::EventKind;
use agent_terms::GenerationId;

use crate::{
    daemon::{
        agent::Agent,
        step::{Step, take},
        world_error::WorldError,
    },
    datapath,
    host::cgroup::{Cgroup, without},
};

impl Agent {
    /// Puts all processes of a generation's cgroup where those of the service were first, or as near as there is a group. Tells people
    /// of what does not confine them any more, and returns that.
    ///
    /// # Errors
    ///
    /// When one cannot be moved.
    pub(in crate::daemon) fn move_home(
        &mut self,
        generation: GenerationId,
        cgroup: &Cgroup,
        origin: &Path,
    ) -> Result<Vec<String>, WorldError> {
        let programs = cgroup.programs().unwrap_or_default();
        let is_empty = cgroup.pids().is_ok_and(|pids| pids.is_empty());
        let was_there = self.hierarchy.open(origin).is_ok();
        let home = take(Step::ReturnProcesses, || Ok(self.hierarchy.return_to(origin, cgroup)?))?;
        if is_empty {
            return Ok(Vec::new());
        }
        let mut said = Vec::new();
        let place = home.directory().display();
        if home.directory() != origin || !was_there {
            let why = if origin.as_os_str().is_empty() {
                "nobody knows in which one the first ones were".to_owned()
            } else if home.directory() == origin {
                "it was gone, and was made anew".to_owned()
            } else if home.directory().parent() == Some(origin) {
                format!("`{}`, in which the first ones were, takes none itself", origin.display())
            } else {
                format!("`{}`, in which the first ones were, is gone", origin.display())
            };
            said.push(format!(
                "the processes of generation {} are in control group `{place}` now: {why}",
                generation.number
            ));
        }
        let there = home.programs().unwrap_or_default();
        let lost: Vec<_> = without(&programs, &there)
            .into_iter()
            .filter(|it| !datapath::is_of_an_agent(&it.name, it.attach_type))
            .map(ToString::to_string)
            .collect();
        if !lost.is_empty() {
            said.push(format!(
                "the processes of generation {} are in control group `{place}` now, whose processes these BPF programs do not confine: {}",
                generation.number,
                lost.join(", ")
            ));
        }
        for message in &said {
            self.note(generation, EventKind::Warning, message.clone());
        }
        Ok(said)
    }
}
