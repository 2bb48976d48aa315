//! Names that two generations go by, and that one of them takes from the other: PID files and Unix sockets.
//!
//! A candidate may take them as it starts, and remove them as it ends; the old one removes them as it ends. So each such name
//! of the generation that serves gets a second one, before a candidate is launched and again before the old one is told to
//! end. When the other one is gone, the name is given back; when its own generation is gone, the second name goes too. What is
//! kept is written down first, so that an agent that starts meanwhile goes on.

use std::{io, path::Path};

use agent_api::EventKind;
use agent_terms::{GenerationId, GenerationNumber, ServiceId};

use super::kept_name::KeptName;
use crate::{
    daemon::{
        agent::Agent,
        step::{Step, take},
        world_error::WorldError,
    },
    host::{
        names::{Name, find, owners::Owners, second::Fate},
        patience::{self, Whose},
    },
};

impl Agent {
    /// The names that the primary goes by, in words, for whoever is about to launch another one.
    pub(in crate::daemon) fn own_names(&self, candidate: GenerationId) -> Option<String> {
        let (number, serving) = self.serving_beside(candidate)?;
        let found = all_of(candidate.service, &serving);
        let paths: Vec<_> =
            found.iter().map(|name| format!("`{}`", name.path().display())).collect();
        (!paths.is_empty()).then(|| {
            format!(
                "generation {number} goes by {}: should the new one replace that and be rolled back, generation {number} gets it back",
                paths.join(", ")
            )
        })
    }

    /// Keeps the names of the primary that a candidate may take over.
    ///
    /// # Errors
    ///
    /// Only where a test wants one: a name that cannot be kept is told of, and holds up nothing.
    pub(in crate::daemon) fn keep_names_from(
        &mut self,
        candidate: GenerationId,
    ) -> Result<(), WorldError> {
        let Some((of, serving)) = self.serving_beside(candidate) else { return Ok(()) };
        let found = all_of(candidate.service, &serving);
        self.keep(of, &serving, candidate, found)
    }

    /// Keeps the names of the primary that this generation may take along.
    ///
    /// # Errors
    ///
    /// As above.
    pub(in crate::daemon) fn keep_names(
        &mut self,
        leaving: GenerationId,
    ) -> Result<(), WorldError> {
        let Some((number, serving)) = self.serving_beside(leaving) else { return Ok(()) };
        let Ok(ending) = self.pids_of(leaving) else { return Ok(()) };
        let sockets = find::shared_sockets(serving.pids(), &ending);
        let named = serving.clone();
        let (sockets, mut found) = in_its_directories(leaving.service, move || {
            (there_are(&named, sockets), find::pid_files(&named, &ending))
        });
        for socket in &sockets {
            let message = format!(
                "generations {} and {number} both listen on `{}`: kept for generation {number}",
                leaving.number,
                socket.path().display()
            );
            self.note(leaving, EventKind::Warning, message);
        }
        found.extend(sockets);
        self.keep(number, &serving, leaving, found)
    }

    fn keep(
        &mut self,
        of: GenerationNumber,
        serving: &Owners,
        leaving: GenerationId,
        found: Vec<Name>,
    ) -> Result<(), WorldError> {
        let first = serving.first();
        let before = self.record(leaving.service).kept_names.clone();
        let (kept, outdated) = in_its_directories(leaving.service, move || {
            let new = |name: Name| {
                let path = name.path();
                let kept = KeptName::new(of, leaving.number, name, first, &before);
                kept.inspect_err(|error| warn_of_unkept(&path, error)).ok()
            };
            let kept: Vec<_> = found.into_iter().filter_map(new).collect();
            let mut outdated = before;
            outdated.retain(|old| kept.iter().any(|new| new.replaces(old)));
            (kept, outdated)
        });
        if kept.is_empty() {
            return Ok(());
        }
        let known = &mut self.record_mut(leaving.service).kept_names;
        // What is kept from before stays so: after a restart the name itself may be gone already.
        known.retain(|it| {
            it.leaving != leaving.number || kept.iter().all(|new| new.name != it.name)
        });
        known.extend(kept.iter().cloned());
        self.save_or_owe();
        take(Step::KeepNames, || {
            in_its_directories(leaving.service, move || {
                for old in &outdated {
                    if let Err(error) = old.drop_second(first) {
                        tracing::warn!(%error, path = %old.name.path().display(), "a second name stays");
                    }
                }
                for new in &kept {
                    if let Err(error) = new.keep(first) {
                        warn_of_unkept(&new.name.path(), &error);
                    }
                }
            });
            Ok(())
        })
    }

    /// Gives back what a generation that is gone has removed, and says so; what it went by itself is kept no longer.
    ///
    /// # Errors
    ///
    /// Only where a test wants one.
    pub(in crate::daemon) fn give_names_back(
        &mut self,
        gone: GenerationId,
    ) -> Result<(), WorldError> {
        let Some(record) = self.record_if_any(gone.service) else { return Ok(()) };
        let concerns = |it: &&KeptName| it.leaving == gone.number || it.of == gone.number;
        let kept: Vec<_> = record.kept_names.iter().filter(concerns).cloned().collect();
        if kept.is_empty() {
            return Ok(());
        }
        let serving: Vec<_> =
            kept.iter().map(|it| self.owners_of(it, gone)).collect::<Result<_, _>>()?;
        let fates = take(Step::GiveNamesBack, || {
            let settle = |(it, serving): (KeptName, Owners)| {
                // One after the other: they may be on file systems of different kinds.
                let settle = move || it.settle(&serving, gone.number);
                patience::with(Whose::Service(gone.service.0), settle).flatten()
            };
            Ok(kept.iter().cloned().zip(serving).map(settle).collect::<Vec<_>>())
        })?;
        for (KeptName { name, of, .. }, fate) in kept.iter().zip(fates) {
            let path = name.path();
            let path = path.display();
            let message = match fate {
                Ok(Fate::Stayed) => continue,
                Ok(Fate::GivenBack) => format!(
                    "generation {} took `{path}` along as it ended: given back to generation {of}",
                    gone.number
                ),
                Ok(Fate::Restored) => format!(
                    "generation {} emptied `{path}` as it ended: it names generation {of} again",
                    gone.number
                ),
                Ok(Fate::Unkept) => format!(
                    "generation {} may have removed `{path}`, which generation {of} goes by",
                    gone.number
                ),
                Err(error) => {
                    format!("`{path}` could not be given back to generation {of}: {error}")
                }
            };
            self.note(gone, EventKind::Warning, message);
        }
        self.record_mut(gone.service)
            .kept_names
            .retain(|it| it.leaving != gone.number && it.of != gone.number);
        self.save_or_owe();
        Ok(())
    }

    fn owners_of(&self, kept: &KeptName, gone: GenerationId) -> Result<Owners, WorldError> {
        let pids = self.pids_of(GenerationId { number: kept.of, ..gone }).unwrap_or_default();
        Ok(Owners::of(pids)?)
    }

    /// For a service that is let go of: whatever has a second name still has it for nothing.
    pub(in crate::daemon) fn give_all_names_back(
        &mut self,
        id: ServiceId,
    ) -> Result<(), WorldError> {
        let leaving: Vec<_> = self.record(id).kept_names.iter().map(|it| it.leaving).collect();
        leaving
            .into_iter()
            .try_for_each(|number| self.give_names_back(GenerationId { service: id, number }))
    }

    /// The generation that serves while another one leaves, and its processes.
    fn serving_beside(&self, leaving: GenerationId) -> Option<(GenerationNumber, Owners)> {
        let primary = self.record_if_any(leaving.service)?.service.primary()?;
        let number = Some(primary.number()).filter(|number| *number != leaving.number)?;
        let pids = self.pids_of(GenerationId { number, ..leaving }).ok()?;
        if pids.is_empty() {
            return None;
        }
        let owners = Owners::of(pids).inspect_err(|error| {
            tracing::warn!(%error, "cannot look after the names that a server goes by");
        });
        Some((number, owners.ok()?))
    }
}

fn warn_of_unkept(path: &Path, error: &io::Error) {
    tracing::warn!(%error, path = %path.display(), "cannot keep a name that another generation may remove");
}

/// The PID files that name one of these processes, and the named Unix sockets that they listen on.
fn all_of(id: ServiceId, serving: &Owners) -> Vec<Name> {
    let sockets = find::shared_sockets(serving.pids(), serving.pids());
    let named = serving.clone();
    in_its_directories(id, move || {
        let mut found = find::pid_files(&named, &[]);
        found.extend(there_are(&named, sockets));
        found
    })
}

fn there_are(named: &Owners, mut sockets: Vec<Name>) -> Vec<Name> {
    sockets.retain(|socket| find::is_socket_of(named, socket));
    sockets
}

/// Does something in the directories of a service's server; nothing comes of it if these do not answer.
fn in_its_directories<T: Default + Send + 'static>(
    id: ServiceId,
    look: impl FnOnce() -> T + Send + 'static,
) -> T {
    patience::with(Whose::Service(id.0), look).unwrap_or_else(|error| {
        tracing::warn!(%error, service = id.0, "cannot look after the names that a server goes by");
        T::default()
    })
}
