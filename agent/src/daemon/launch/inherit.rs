//! What the next generation is given of the one that it replaces.
//!
//! A generation passes on what it was given itself, and not what it has when it is replaced: a process that executes itself
//! anew shows in `/proc` what it gave to itself, with handover variables and lowered limits. Of one that was found nobody knows
//! more than `/proc` showed then, so that what can only be its own doing is left out.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agent_api::Command;
use agent_rollout::Generation;
use agent_terms::{GenerationId, GenerationNumber, ServiceId};

use super::{
    error::NotLaunched,
    given::{Given, Inherited, path_of},
};
use crate::{
    daemon::{agent::Agent, world_error::WorldError},
    host::{
        context::{Context, Namespace},
        holders,
        os_text::OsText,
        patience::{self, Whose},
        process::{Pid, Process},
        process_table::ProcessTable,
        sock_diag,
    },
};

/// Bytes that an environment that is remembered takes as it is written down.
const MOST_REMEMBERED: usize = 256 << 10;

impl Agent {
    /// What the primary passes on; with none alive, what it had.
    ///
    /// # Errors
    ///
    /// When its processes cannot be looked at.
    pub(in crate::daemon) fn inherited(
        &self,
        id: ServiceId,
        command: &Command,
    ) -> Result<Inherited, NotLaunched> {
        let record = self.record(id);
        let Some(primary) = record.service.primary() else {
            return Ok(Inherited::remembered(&record.context));
        };
        let pids = self.pids_of(GenerationId { service: id, number: primary.number() })?;
        let given = record.given.get(&primary.number().0);
        let Some(root) = holders::roots(&pids)?.first().copied() else {
            return Ok(
                given.map_or_else(|| Inherited::remembered(&record.context), Given::passed_on)
            );
        };
        let given = match given {
            Some(given) => given.clone(),
            None => self.found(root, primary, &pids)?,
        };
        if given.may_have_been_root() && command.user.is_none() {
            // Who is started as root is for the operator to say.
            return Err(NotLaunched::MayBeRoot { uid: given.uid() });
        }
        let mut inherited = given.passed_on();
        let root = Process::open(root)?.identity();
        inherited.directory_of = Some(root);
        if !inherited.context.namespaces.is_empty() {
            inherited.namespaces_of = Some(root);
        }
        inherited.make_room_beside(&pids)?;
        Ok(inherited)
    }

    /// What a server shows that somebody started.
    ///
    /// # Errors
    ///
    /// When its process cannot be looked at.
    pub(in crate::daemon) fn found(
        &self,
        root: Pid,
        generation: &Generation,
        pids: &[Pid],
    ) -> Result<Given, WorldError> {
        let context = Context::of(root, self.launcher.pid())?;
        let may_have_been_root = may_have_been_root(root, &context, generation, pids)?;
        Given::found(context, root, may_have_been_root)
    }

    /// Whether a generation was started as root, or may have been.
    pub(in crate::daemon) fn is_of_root(&self, generation: GenerationId) -> bool {
        let Some(record) = self.record_if_any(generation.service) else { return false };
        match record.given.get(&generation.number.0) {
            Some(given) => given.may_have_been_root() || given.uid() == ROOT,
            None => record.context.uid == ROOT,
        }
    }

    /// Whoever started a generation belongs to it from now on, and may be root: it was started as root then, whoever it made of its server.
    ///
    /// # Errors
    ///
    /// When the process cannot be looked at.
    pub(in crate::daemon) fn note_starter_joined(
        &mut self,
        generation: GenerationId,
        starter: Pid,
    ) -> Result<(), WorldError> {
        let table = ProcessTable::read_these(&[starter])?;
        if table.row(starter).is_some_and(|row| row.real_user == ROOT) {
            let record = self.record(generation.service);
            let given = record.given.get(&generation.number.0).cloned();
            let given = given.unwrap_or_else(|| Given::launched_with(record.context.clone()));
            self.remember_given(generation, given.by_root());
        }
        Ok(())
    }

    /// Remembers what a generation was given, for its successor, instead of those that are gone. What is of a size that no
    /// server has is not: it would be written down at every step.
    pub(in crate::daemon) fn remember_given(&mut self, generation: GenerationId, given: Given) {
        let written = |text: &OsText| serde_json::to_vec(text).map_or(usize::MAX, |it| it.len());
        let bytes = |(name, value): &(OsText, OsText)| written(name).saturating_add(written(value));
        let record = self.record_mut(generation.service);
        let lives = |number: u32| record.service.generation(GenerationNumber(number)).is_some();
        record.given.retain(|number, _| lives(*number));
        if given.environment().iter().map(bytes).fold(0, usize::saturating_add) <= MOST_REMEMBERED {
            record.given.insert(generation.number.0, given);
        }
    }

    /// Remembers what one that was found shows.
    ///
    /// # Errors
    ///
    /// When its processes cannot be looked at.
    pub(in crate::daemon) fn remember_found(
        &mut self,
        generation: GenerationId,
    ) -> Result<(), WorldError> {
        let pids = self.pids_of(generation)?;
        let Some(known) = self.generation(generation) else { return Ok(()) };
        // One that has just ended has given all that it had.
        let Some(root) = holders::roots(&pids)?.first().copied() else { return Ok(()) };
        let given = self.found(root, known, &pids)?;
        self.record_mut(generation.service).context = given.passed_on().context;
        self.remember_given(generation, given);
        Ok(())
    }
}

/// Whether a server may have been started as root, and have given that up when it had its listener: its listeners are root's
/// (`sk_uid`, set when a socket is made); its files in `/proc` are root's, as the kernel leaves them when a process becomes another
/// user after it was executed (`commit_creds`, `set_dumpable`); and nobody else has the listener, from whom it could have been
/// inherited, as from a super-server.
///
/// It is no proof: a server can arrange the second (`PR_SET_DUMPABLE`). Nor is any other sign one, as far as is known: which user the
/// kernel opened its program as (`mm_struct.exe_file`) can be arranged too, by `PR_SET_MM_EXE_FILE` and `binfmt_misc`. So nobody is
/// started as root for it, and the operator is asked.
fn may_have_been_root(
    root: Pid,
    context: &Context,
    generation: &Generation,
    pids: &[Pid],
) -> Result<bool, WorldError> {
    if context.uid == ROOT || context.namespaces.contains(&Namespace::User) {
        return Ok(false);
    }
    let owner = fs::metadata(format!("/proc/{root}/environ")).map(|file| file.uid());
    if !owner.is_ok_and(|owner| owner == ROOT) {
        return Ok(false);
    }
    let known = |cookie: u64| generation.listeners().iter().any(|it| it.cookie == cookie);
    let mut listeners = sock_diag::listeners()?;
    listeners.retain(|listener| known(listener.cookie.0));
    if listeners.is_empty() || listeners.iter().any(|listener| listener.uid != ROOT) {
        return Ok(false);
    }
    let inodes = listeners.iter().map(|listener| listener.inode).collect();
    let holders = holders::holders(&inodes)?;
    let pids: HashSet<Pid> = pids.iter().copied().collect();
    Ok(holders.refused == 0 && holders.found.iter().all(|holder| pids.contains(&holder.pid)))
}

/// Lets the successor start as another user than one who is not root, and takes nothing over that the old one can give to itself: with
/// such an environment or directory it would lead the other user to code of its own. Limits it can only lower.
pub(in crate::daemon) fn become_other(
    service: ServiceId,
    context: &mut Context,
    user: u32,
) -> String {
    context.environment = vec![("PATH".into(), path_of(user).into())];
    context.umask |= 0o022;
    if let Some(confinement) = &mut context.confinement {
        // Without random addresses he would be easier to attack.
        confinement.personality = 0;
    }
    let directory = PathBuf::from(context.working_directory.as_os_str());
    let look = move || nobody_else_can_write(&directory, user);
    // Of a directory that does not answer nobody knows.
    if !patience::with(Whose::Service(service.0), look).unwrap_or(false) {
        context.working_directory = "/".into();
    }
    let before = context.uid;
    format!(
        "the new generation is started as user {user}, in {}, and without the environment of the running one, which is user {before}: see --cwd, --env",
        context.working_directory.as_os_str().display()
    )
}

/// Nobody but root and this user.
fn nobody_else_can_write(directory: &Path, user: u32) -> bool {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    directory.is_absolute()
        && directory.ancestors().all(|above| {
            fs::symlink_metadata(above).is_ok_and(|it| {
                it.is_dir() && [ROOT, user].contains(&it.uid()) && it.mode() & OTHERS_MAY_WRITE == 0
            })
        })
}

const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_anywhere_by_another_user() {
        let directory = tempfile::tempdir().unwrap();
        let mut context = Context::of(Pid::ours(), Pid::ours()).unwrap();
        context.uid = 33;
        context.umask = 0;
        context.working_directory = directory.path().into();
        context.environment = vec![("LD_PRELOAD".into(), "/tmp/own.so".into())];
        become_other(ServiceId(1), &mut context, 0);
        assert_eq!(context.umask, 0o022);
        // Everybody may write to what is above it.
        assert_eq!(context.working_directory, "/".into());
        assert_eq!(context.environment.len(), 1);
        assert_eq!(context.environment[0].0, "PATH".into());
        for user in [0, 33] {
            let usual = Path::new("/usr/bin");
            assert!(nobody_else_can_write(usual, user) || !usual.is_dir());
        }
        assert!(!nobody_else_can_write(Path::new("relative"), 0));
    }
}
