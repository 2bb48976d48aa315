//! Launches a candidate with what the generation it replaces was given.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_api::Command;
use agent_ebpf::bind::{BindRule, MOVE, SHARE};
use agent_rollout::{Origin, Phase, PortHold};
use agent_terms::{GenerationId, ServiceId};

use super::{
    confined, error::NotLaunched, given::Inherited, inherit::become_other,
    leaving_namespaces::leave_namespaces, working_directory,
};
use crate::{
    daemon::{
        agent::Agent,
        step::{Step, take},
        world_error::WorldError,
    },
    host::{
        cgroup::Cgroup,
        context::Context,
        launch::{self, Directory, LaunchSpec},
        os_text::OsText,
        patience::{self, Whose},
        process::ProcessIdentity,
        sock_diag,
    },
};

impl Agent {
    /// What to launch as the next generation, checked as far as it can be before anything is done; and what the operator
    /// should know of it.
    ///
    /// # Errors
    ///
    /// When the command cannot work: no such user or directory.
    pub(in crate::daemon) fn launch_spec(
        &self,
        generation: GenerationId,
        command: &Command,
    ) -> Result<(LaunchSpec, Vec<String>), NotLaunched> {
        self.require_room_for_processes(generation.service)?;
        let record = self.record(generation.service);
        let mut inherited = self.inherited(generation.service, command)?;
        let serving = inherited.directory_of;
        leave_namespaces(&mut inherited, command)?;
        let Inherited { mut context, namespaces_of, mut directory_of, mut warnings } = inherited;
        // What root has set up leads nobody astray.
        if let Some(user) =
            wanted_user(command)?.filter(|it| context.uid != 0 && *it != context.uid)
        {
            warnings.push(become_other(generation.service, &mut context, user));
            directory_of = None;
        }
        let mut context = overridden(context, command)?;
        confined::refuse_losses(&context, command, self.launcher.pid())?;
        warnings.extend(self.keep_groups(generation, command, serving, &mut context)?);
        warnings.extend(confined::keep_to_what_root_has(&mut context));
        let Paths { program, warning, directory } =
            paths_of(generation.service, command, &context, namespaces_of, directory_of)?;
        warnings.extend(warning);
        let (argument_zero, arguments) =
            command.arguments.split_first().ok_or(NotLaunched::NoCommand)?;
        let spec = LaunchSpec {
            program: text(program),
            argument_zero: Some(text(argument_zero)),
            arguments: arguments.iter().map(text).collect(),
            context,
            directory,
            namespaces_of,
            cgroup: text(self.cgroup_path(generation)),
            log: Some(text(self.log_path(record.service.name(), generation.number))),
            socket_names: Vec::new(),
        };
        Ok((spec, warnings))
    }

    /// Begins to start the candidate's processes in a cgroup of their own; [`Self::look_at_launch`] sees how that goes.
    ///
    /// # Errors
    ///
    /// Says which step failed; nothing of the candidate is left running then.
    pub(in crate::daemon) fn launch_candidate(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), NotLaunched> {
        let known = self.memories.known_mut(generation);
        let spec = known.and_then(|it| it.to_launch.take()).ok_or(NotLaunched::Forgotten)?;
        let path = self.cgroup_path(generation);
        let cgroup = take(Step::MakeCgroup, || Ok(self.hierarchy.create(&path)?))?;
        // Before anybody is in it.
        self.confine_group(&cgroup, &spec.context)?;
        self.offer_ports(generation.service, spec.context.uid)?;
        let mut rule = self.bind_rule(generation, spec.context.uid)?;
        if rule.action == SHARE && !self.can_share(generation.service)? {
            rule.action = MOVE;
        }
        take(Step::SetBindRule, || Ok(self.datapath.set_bind_rule(generation, rule)?))?;
        self.keep_names_from(generation)?;
        let launcher = Arc::clone(&self.launcher);
        let launch = self.born_into(generation, |_| {
            take(Step::Launch, || Ok(launch::launch(&*launcher, &spec, &[])))
        })?;
        self.await_launch(generation, launch?)?;
        self.look_at_logs();
        Ok(())
    }

    /// Share the port with those that hold it, unless one of them cannot share it.
    pub(in crate::daemon) fn bind_rule(
        &self,
        generation: GenerationId,
        launched_as: u32,
    ) -> Result<BindRule, WorldError> {
        let service = &self.record(generation.service).service;
        let others = service
            .generations()
            .iter()
            .filter(|it| it.number() != generation.number && *it.phase() != Phase::Dead);
        let (shared, alone): (Vec<_>, Vec<_>) = others
            .filter(|it| it.hold() != PortHold::Moved)
            .partition(|it| it.hold() != PortHold::Plain);
        let cookies: Vec<_> =
            shared.iter().flat_map(|it| it.listeners()).map(|listener| listener.cookie).collect();
        let open = sock_diag::listeners()?;
        let listening = open.iter().filter(|it| cookies.contains(&it.cookie.0)).map(|it| it.uid);
        let holding = self.held_groups(generation.service);
        let owners: BTreeSet<u32> =
            listening.chain(holding.iter().map(|group| group.uid)).collect();
        // The kernel lets only sockets of one user share.
        let action = if alone.is_empty() && owners.len() <= 1 { SHARE } else { MOVE };
        Ok(BindRule { action, owner: owners.first().copied().unwrap_or(launched_as) })
    }

    pub(in crate::daemon) fn watch_cgroup(
        &self,
        generation: GenerationId,
        cgroup: &Cgroup,
    ) -> Result<(), WorldError> {
        let watch = cgroup.watch_populated()?;
        self.watcher.watch_cgroup(generation, watch).map_err(WorldError::WaitForGroup)
    }

    /// The cgroup of a launched generation; `None` for one that was found running.
    pub(in crate::daemon) fn cgroup_of(
        &self,
        generation: GenerationId,
    ) -> Result<Option<Cgroup>, WorldError> {
        let service = self.record_if_any(generation.service).map(|record| &record.service);
        let known = service.and_then(|service| service.generation(generation.number));
        match known.map(|it| it.origin()) {
            Some(Origin::Launched { cgroup, .. }) if cgroup.exists() => {
                self.hierarchy.open(cgroup).map(Some).map_err(WorldError::from)
            }
            Some(Origin::Launched { .. } | Origin::Found) | None => Ok(None),
        }
    }

    pub(in crate::daemon) fn cgroup_path(&self, generation: GenerationId) -> PathBuf {
        let service =
            self.record_if_any(generation.service).map(|record| record.service.name().to_string());
        let service = service.unwrap_or_else(|| generation.service.0.to_string());
        self.groups.of_generation(&service, generation.number)
    }

    /// Refuses to launch where no group can be, or where processes live already: they are another agent's, which has the same control
    /// groups.
    pub(in crate::daemon) fn require_group(
        &self,
        generation: GenerationId,
    ) -> Result<(), NotLaunched> {
        let path = self.cgroup_path(generation);
        match self.hierarchy.open(&path) {
            Ok(group) if group.is_populated().unwrap_or(false) => {
                Err(NotLaunched::GroupInUse { path })
            }
            Ok(_) => Ok(()),
            // It is made again when all else is known to be well.
            Err(_) => {
                let made = self.hierarchy.create(&path).and_then(|group| group.remove());
                made.map_err(NotLaunched::Group)
            }
        }
    }
}

fn overridden(mut context: Context, command: &Command) -> Result<Context, NotLaunched> {
    let Command {
        program: _,
        arguments: _,
        working_directory,
        user,
        group,
        environment,
        without,
        clear_environment,
        limits,
        namespaces: _,
        unconfined: _,
        called_from: _,
    } = command;
    if let Some(directory) = working_directory {
        context.working_directory = text(directory);
    }
    if let Some(user) = user {
        become_user(&mut context, user, group.is_some())?;
    }
    if let Some(group) = group {
        context.gid = find_group(group)?;
    }
    if *clear_environment {
        context.environment.clear();
    }
    context
        .environment
        .retain(|(known, _)| !without.iter().any(|it| known.as_os_str() == it.as_str()));
    for (name, value) in environment {
        context.environment.retain(|(known, _)| known.as_os_str() != name.as_str());
        context.environment.push((text(name), text(value)));
    }
    for limit in limits {
        context.limits.retain(|known| known.resource != limit.resource);
        context.limits.push(*limit);
    }
    Ok(context)
}

/// Who the operator wants it to be. A number need not be in the user database: in containers it often is not.
fn wanted_user(command: &Command) -> Result<Option<u32>, NotLaunched> {
    let number = |user: &str| match find_user(user)? {
        Some(user) => Ok(user.uid.as_raw()),
        None => user.parse().ok().ok_or_else(|| NotLaunched::NoUser { user: user.to_owned() }),
    };
    command.user.as_deref().map(number).transpose()
}

fn become_user(context: &mut Context, user: &str, names_group: bool) -> Result<(), NotLaunched> {
    if let Some(known) = find_user(user)? {
        (context.uid, context.gid) = (known.uid.as_raw(), known.gid.as_raw());
        context.groups = vec![context.gid];
        return Ok(());
    }
    let number =
        user.parse().map_err(|_not_a_number| NotLaunched::NoUser { user: user.to_owned() })?;
    if !names_group && context.uid != number {
        return Err(NotLaunched::NoGroupOfUser { user: number });
    }
    if context.uid != number {
        context.groups = Vec::new();
    }
    context.uid = number;
    Ok(())
}

/// What was looked up in the file system.
struct Paths {
    /// The program as it is to be called.
    program: PathBuf,
    /// What the operator should know of the directory that it runs in.
    warning: Option<String>,
    directory: Directory,
}

/// Where the program is and the directory it runs in. Both may be on file systems of the server's own, which nobody waits for.
///
/// # Errors
///
/// When there is no such program or directory, or they do not answer.
fn paths_of(
    service: ServiceId,
    command: &Command,
    context: &Context,
    namespaces_of: Option<ProcessIdentity>,
    directory_of: Option<ProcessIdentity>,
) -> Result<Paths, NotLaunched> {
    let (asked, given) = (command.clone(), context.clone());
    let whose = Whose::Directory(service.0, context.working_directory.as_os_str().into());
    let look = move || {
        if namespaces_of.is_none() {
            require_directory(&given)?;
        }
        let warning = working_directory::check(&asked, &given, namespaces_of)?;
        let program = asked.program.as_deref().ok_or(NotLaunched::NoCommand)?;
        let directory = match asked.working_directory {
            Some(_) => Directory::Named,
            None => Directory::Shown { held: directory_of.and_then(working_directory::held_by) },
        };
        let program = confined::program_inside(program, &given, namespaces_of)?;
        Ok(Paths { program, warning, directory })
    };
    patience::with(whose, look).unwrap_or_else(|source| {
        let directory = context.working_directory.as_os_str().into();
        Err(NotLaunched::NoAnswer { directory, source })
    })
}

/// Deploy scripts remove old releases: the replaced generation may live in a directory that is gone.
fn require_directory(context: &Context) -> Result<(), NotLaunched> {
    let directory = Path::new(context.working_directory.as_os_str());
    match directory.is_dir() {
        true => Ok(()),
        false => Err(NotLaunched::NoDirectory { directory: directory.to_owned() }),
    }
}

fn find_user(user: &str) -> Result<Option<nix::unistd::User>, NotLaunched> {
    let found = match user.parse() {
        Ok(uid) => nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)),
        Err(_) => nix::unistd::User::from_name(user),
    };
    found.map_err(|source| NotLaunched::LookUpUser { user: user.to_owned(), source })
}

/// The number of a group, which need not be in the group database.
fn find_group(group: &str) -> Result<u32, NotLaunched> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let found = nix::unistd::Group::from_name(group)
        .map_err(|source| NotLaunched::LookUpGroup { group: group.to_owned(), source })?;
    found
        .map(|found| found.gid.as_raw())
        .ok_or_else(|| NotLaunched::NoGroup { group: group.to_owned() })
}

fn text(value: impl AsRef<std::ffi::OsStr>) -> OsText {
    OsText::from(value.as_ref().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_is_in_no_database_is_a_number_and_needs_a_group() {
        const NUMBER: &str = "2000111222";
        let context = Context { uid: 7, gid: 8, groups: vec![9], ..Context::unknown() };
        let refused = become_user(&mut context.clone(), NUMBER, false).unwrap_err();
        assert!(refused.fix().as_deref().unwrap_or_default().contains("--group"), "{refused:?}");
        let mut other = context.clone();
        become_user(&mut other, NUMBER, true).unwrap();
        assert_eq!((other.uid, other.groups), (2_000_111_222, Vec::new()));
        let mut same = Context { uid: 2_000_111_222, ..context };
        become_user(&mut same, NUMBER, false).unwrap();
        assert_eq!((same.gid, &same.groups[..]), (8, &[9][..]), "it stays in its groups");
        let refused = become_user(&mut same, "nobody-of-that-name", true).unwrap_err();
        assert!(refused.to_string().contains("there is no user"), "{refused:?}");
        assert_eq!(find_group("2000111222").unwrap(), 2_000_111_222);
    }
}
