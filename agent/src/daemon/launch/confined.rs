//! How a next generation is confined: as the one that it replaces, or the operator says what it may be without.

use std::path::{Path, PathBuf};

use agent_api::Command;
use agent_terms::GenerationId;

use super::error::NotLaunched;
use crate::{
    daemon::{agent::Agent, world_error::WorldError},
    host::{
        cgroup::Cgroup,
        confinement::{Confinement, losses},
        context::Context,
        holders,
        process::{Pid, ProcessIdentity},
    },
};

/// Refuses to start with fewer rights than the running server has, and with more, unless that was asked for by name.
///
/// # Errors
///
/// When something would be lost, or the launcher, whose child the next one is, cannot be looked at.
pub(in crate::daemon) fn refuse_losses(
    context: &Context,
    command: &Command,
    launcher: Pid,
) -> Result<(), NotLaunched> {
    let Some(theirs) = &context.confinement else { return Ok(()) };
    let ours = Confinement::of(launcher)?;
    let lacking = theirs.capabilities.not_passed_on_by(&ours.capabilities, context.uid);
    if !lacking.is_empty() {
        return Err(NotLaunched::LacksCapabilities { lacking });
    }
    let lost = losses(theirs, &ours).into_iter().find(|it| !command.unconfined.contains(it));
    let label = || theirs.label.clone().unwrap_or_default();
    lost.map_or(Ok(()), |loss| Err(NotLaunched::Loses { loss, label: label() }))
}

/// Root executes with all that its bounding set allows. The next one gets no more than the running server has; says so if that
/// is less.
pub(in crate::daemon) fn keep_to_what_root_has(context: &mut Context) -> Option<String> {
    let capabilities = &mut context.confinement.as_mut()?.capabilities;
    capabilities.keep_to_what_root_has().then(|| {
        "the running server is root with less than all capabilities: the new generation is started with no more than it has \
         now, which may be too little for the start"
            .to_owned()
    })
}

/// Leaves out the groups that went with the processes that were in them; says which.
pub(in crate::daemon) fn leave_out_groups_gone(context: &mut Context) -> Option<String> {
    let groups = &mut context.confinement.as_mut()?.groups;
    let gone: Vec<_> = groups.extract_if(.., |group| !group.exists()).collect();
    let gone: Vec<_> =
        gone.iter().map(|it| it.directory.as_os_str().display().to_string()).collect();
    (!gone.is_empty()).then(|| {
        format!(
            "the new generation has no limits of the control groups {}: they are gone",
            gone.join(", ")
        )
    })
}

/// The program as it is called inside the root directory that it is to have.
///
/// # Errors
///
/// When it is not in there.
pub(in crate::daemon) fn program_inside(
    program: &Path,
    context: &Context,
    namespaces_of: Option<ProcessIdentity>,
) -> Result<PathBuf, NotLaunched> {
    let root = context.confinement.as_ref().and_then(|it| it.root.as_ref());
    let Some(root) = root.map(|it| Path::new(it.as_os_str())) else {
        return Ok(program.to_owned());
    };
    if let Ok(inside) = program.strip_prefix(root) {
        return Ok(Path::new("/").join(inside));
    }
    let relative = program.strip_prefix("/").unwrap_or(program);
    // Below it may be mounted what only the server sees.
    let seen = match namespaces_of {
        Some(server) => PathBuf::from(format!("/proc/{}/root", server.pid)),
        None => root.to_owned(),
    };
    if seen.join(relative).exists() {
        return Ok(program.to_owned());
    }
    Err(NotLaunched::NotInRoot { root: root.to_owned(), program: program.to_owned() })
}

impl Agent {
    /// The group whose limits a next generation gets: that of the one that it replaces, or, with none alive, that of the
    /// first.
    ///
    /// # Errors
    ///
    /// When the processes cannot be listed.
    pub(in crate::daemon) fn group_to_resemble(
        &self,
        next: GenerationId,
    ) -> Result<Option<Cgroup>, WorldError> {
        let record = self.record(next.service);
        let origin = || self.hierarchy.open(record.origin_cgroup.as_ref()).ok();
        let Some(primary) = record.service.primary() else { return Ok(origin()) };
        let primary = GenerationId { number: primary.number(), ..next };
        if let Some(own) = self.cgroup_of(primary)? {
            return Ok(Some(own));
        }
        let root = holders::roots(&self.pids_of(primary)?)?.first().copied();
        let of_root = root.and_then(|root| self.hierarchy.of(root).ok());
        // The kernel names it from the root of all; the mount may show less.
        Ok(of_root.filter(|group| group.id().is_ok()).or_else(origin))
    }
}
