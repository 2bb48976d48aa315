//! What the control groups of a server confine it by, carried over to those of the next generation: the groups of version 1 in which
//! it is, the limits of version 2, and the BPF programs that are asked about what it does.
//!
//! Of a server that lives it is what holds now. Of one that has ended it is what its group says, if that is still there, and what was
//! written down of it if not.

use agent_api::Command;
use agent_terms::{GenerationId, Loss};

use super::error::NotLaunched;
use crate::{
    daemon::agent::Agent,
    datapath,
    host::{
        cgroup::{Cgroup, Confining, Program, Refused, without},
        confinement::groups_of,
        context::Context,
        process::{Process, ProcessIdentity},
    },
};

impl Agent {
    /// Finds out how the control groups of the server that is replaced confine it, for the next one to be confined likewise. Returns
    /// what the operator should know.
    ///
    /// # Errors
    ///
    /// When something of it would be lost, unless that was asked for by name.
    pub(super) fn keep_groups(
        &self,
        next: GenerationId,
        command: &Command,
        serving: Option<ProcessIdentity>,
        context: &mut Context,
    ) -> Result<Vec<String>, NotLaunched> {
        if let Some(confinement) = context.confinement.as_mut()
            && let Some(serving) = serving
        {
            confinement.groups = groups_of(serving.pid)?;
        }
        let mut said = Vec::new();
        match self.group_to_resemble(next, serving, context)? {
            Some(group) => {
                let confining = Confining::of(&group, &self.hierarchy);
                context.control_group = Some(confining.map_err(NotLaunched::Group)?);
            }
            None if context.control_group.is_none() => {
                let origin = &self.record(next.service).origin_cgroup;
                let gone = format!(
                    "the control group `{}` is gone, and nobody knows what it allowed",
                    origin.as_os_str().display()
                );
                said.push(lost(command, Loss::Groups, &gone)?);
            }
            None => {}
        }
        // Its number may be another one's by now, and so may be what was read.
        if let Some(serving) = serving
            && !Process::lives(serving)?
        {
            return Err(NotLaunched::EndedMeanwhile { pid: serving.pid });
        }
        said.extend(keep_to_groups_above(command, context)?);
        said.extend(self.keep_programs(next, command, context)?);
        Ok(said)
    }

    /// The group of the generation that is replaced: its own, or the one in which its server is; or, with none alive, the one in
    /// which it was, if that is still there.
    fn group_to_resemble(
        &self,
        next: GenerationId,
        serving: Option<ProcessIdentity>,
        context: &Context,
    ) -> Result<Option<Cgroup>, NotLaunched> {
        let record = self.record(next.service);
        let own = match record.service.primary() {
            Some(it) => self.cgroup_of(GenerationId { number: it.number(), ..next })?,
            None => None,
        };
        // The kernel names it from the root of all; the mount may show less.
        let now = serving.and_then(|it| self.hierarchy.of(it.pid).ok());
        let now = now.filter(|group| group.id().is_ok());
        // What a server makes below its own group it makes again.
        let is_outside = |now: &Cgroup| {
            own.as_ref().is_none_or(|own| !now.directory().starts_with(own.directory()))
        };
        if let Some(group) = now.filter(is_outside).or(own) {
            return Ok(Some(group));
        }
        Ok(match &context.control_group {
            Some(known) => known.group(&self.hierarchy),
            // Written down before more was known than its name, if that was.
            None => Some(&record.origin_cgroup)
                .filter(|origin| !origin.as_bytes().is_empty())
                .and_then(|origin| self.hierarchy.open(origin.as_ref()).ok()),
        })
    }

    /// Leaves out the programs that the next one cannot be given.
    ///
    /// # Errors
    ///
    /// When there is one, and the operator has not said that the next one may do without.
    fn keep_programs(
        &self,
        next: GenerationId,
        command: &Command,
        context: &mut Context,
    ) -> Result<Vec<String>, NotLaunched> {
        const CONFINED: &str =
            "the running server is confined by BPF programs of its control group";
        let Some(confining) = &mut context.control_group else { return Ok(Vec::new()) };
        let Some(programs) = &mut confining.programs else {
            confining.programs = Some(Vec::new());
            let message = "the kernel does not say which BPF programs of its control group confine the running server";
            return Ok(vec![lost(command, Loss::Bpf, message)?]);
        };
        // Those of an agent see to its own generations only.
        programs.retain(|it| !datapath::is_of_an_agent(&it.name, it.attach_type));
        let missing = self.missing(programs)?;
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let refused = self.try_programs(next, &missing)?;
        let mut said = Vec::new();
        for (program, error) in refused {
            let message =
                format!("{CONFINED}, of which {program} cannot be given to another one: {error}");
            said.push(lost(command, Loss::Bpf, &message)?);
            programs.retain(|it| *it != program);
        }
        Ok(said)
    }

    /// Those of these programs that are not asked about what goes on in a new group of ours anyway.
    fn missing(&self, programs: &[Program]) -> Result<Vec<Program>, NotLaunched> {
        if programs.is_empty() {
            return Ok(Vec::new());
        }
        let above = self.hierarchy.nearest(self.groups.above());
        let there = above.programs().map_err(NotLaunched::Group)?;
        Ok(without(programs, &there).into_iter().cloned().collect())
    }

    /// Whether a group of ours can have these programs shows when it gets them: the one of the next generation, in which nobody is
    /// yet and which goes again.
    fn try_programs(
        &self,
        next: GenerationId,
        programs: &[Program],
    ) -> Result<Vec<Refused>, NotLaunched> {
        let tried = self.hierarchy.create(&self.cgroup_path(next)).and_then(|group| {
            let refused = group.carry(programs);
            group.remove()?;
            refused
        });
        tried.map_err(NotLaunched::Group)
    }

    /// Has a new group confine its processes as the one of the server before.
    ///
    /// # Errors
    ///
    /// When the kernel refuses what it allowed a moment ago.
    pub(super) fn confine_group(
        &self,
        group: &Cgroup,
        context: &Context,
    ) -> Result<(), NotLaunched> {
        let Some(Confining { limits, programs, .. }) = &context.control_group else {
            return Ok(());
        };
        group.resemble(limits, &self.hierarchy).map_err(NotLaunched::Limits)?;
        let programs = programs.as_deref().unwrap_or_default();
        if programs.is_empty() {
            return Ok(());
        }
        let refused = group.carry(programs).map_err(NotLaunched::Limits)?.into_iter().next();
        refused.map_or(Ok(()), |(program, source)| {
            Err(NotLaunched::ProgramRefused { program: program.to_string(), source })
        })
    }

    /// Which programs the next one's group is given.
    pub(in crate::daemon) fn carried_in_words(&self, context: &Context) -> Option<String> {
        let programs = context.control_group.as_ref()?.programs.as_ref()?;
        let carried = self.missing(programs).ok().filter(|it| !it.is_empty())?;
        let carried: Vec<_> = carried.iter().map(ToString::to_string).collect();
        Some(format!(
            "attach the BPF programs of the old control group to it: {}",
            carried.join(", ")
        ))
    }
}

/// Has the next one be in the nearest groups above those of version 1 that are gone, if that may be.
fn keep_to_groups_above(
    command: &Command,
    context: &mut Context,
) -> Result<Vec<String>, NotLaunched> {
    let Some(confinement) = &mut context.confinement else { return Ok(Vec::new()) };
    let mut said = Vec::new();
    let mut kept = Vec::new();
    for group in confinement.groups.drain(..) {
        if group.exists() {
            kept.push(group);
            continue;
        }
        let gone = format!(
            "the control group `{}`, in which the server was, is gone, and so are its limits ({})",
            group.directory.as_os_str().display(),
            group.controllers
        );
        said.push(lost(command, Loss::Groups, &gone)?);
        kept.extend(group.nearest_above());
    }
    confinement.groups = kept;
    Ok(said)
}

/// What to warn of where the next one may be without something.
///
/// # Errors
///
/// Where it may not.
fn lost(command: &Command, loss: Loss, what: &str) -> Result<String, NotLaunched> {
    if command.unconfined.contains(&loss) {
        return Ok(format!("{what}: the new generation is without"));
    }
    Err(NotLaunched::Loses { loss, what: what.to_owned() })
}
