//! How a next generation is confined: as the one that it replaces, or the operator says what it may be without.

use std::path::{Path, PathBuf};

use agent_api::Command;
use agent_terms::Loss;

use super::error::NotLaunched;
use crate::host::{
    confinement::{Confinement, losses},
    context::Context,
    process::{Pid, ProcessIdentity},
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
    let what = match lost {
        Some(Loss::Seccomp) => {
            "the running server is confined by a filter of system calls (seccomp)".to_owned()
        }
        Some(Loss::Label) => format!(
            "a security module confines the running server as `{}`",
            theirs.label.as_deref().unwrap_or_default()
        ),
        Some(Loss::Bpf | Loss::Groups) | None => return Ok(()),
    };
    let what = format!("{what}, which cannot be given to another process");
    lost.map_or(Ok(()), |loss| Err(NotLaunched::Loses { loss, what }))
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
