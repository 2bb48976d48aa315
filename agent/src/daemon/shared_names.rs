//! Names that two generations go by, and that the old one takes along as it ends: PID files and Unix sockets.
//!
//! Before the old one is told to end, each such name of the generation that serves gets a second one; when the old one is
//! gone, it is given back. What is kept is written down first, so that an agent that starts meanwhile goes on.

use std::io;

use serde::{Deserialize, Serialize};

use super::{
    agent::Agent,
    step::{Step, change},
};
use crate::{
    api::{EventKind, Problem},
    host::{
        names::{self, Content, Fate, Name},
        os_text::OsText,
        process::Pid,
    },
    service::{GenerationId, GenerationNumber, ServiceId},
};

/// A name that has a second one while a generation ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptName {
    /// Which generation may remove it.
    pub leaving: GenerationNumber,
    /// The name.
    pub name: Name,
    /// What it is called as well, in the same directory.
    pub second: OsText,
    /// What it holds, if it is a PID file.
    #[serde(default)]
    pub content: Option<Content>,
}

impl Agent {
    /// Keeps the names of the primary that this generation may take along.
    ///
    /// # Errors
    ///
    /// Only where a test wants one: a name that cannot be kept is told of, and holds up nothing.
    pub(super) fn keep_names(&mut self, leaving: GenerationId) -> Result<(), Problem> {
        let Some((number, serving)) = self.serving_beside(leaving) else { return Ok(()) };
        let Ok(ending) = self.pids_of(leaving) else { return Ok(()) };
        let sockets = names::shared_sockets(&serving, &ending);
        for socket in &sockets {
            let message = format!(
                "generations {} and {number} both listen on `{}`: kept for generation {number}",
                leaving.number,
                socket.path().display()
            );
            self.note(leaving, EventKind::Warning, message);
        }
        let mut found = names::pid_files(&serving, &ending);
        found.extend(sockets);
        if found.is_empty() {
            return Ok(());
        }
        let content = |name: &Name| names::content(name, serving[0]);
        let kept: Vec<_> = found
            .into_iter()
            .map(|name| KeptName { content: content(&name), ..kept(leaving.number, name) })
            .collect();
        let known = &mut self.record_mut(leaving.service).kept_names;
        // What is kept from before stays so: after a restart the name itself may be gone already.
        known.retain(|it| {
            it.leaving != leaving.number || kept.iter().all(|new| new.name != it.name)
        });
        known.extend(kept.iter().cloned());
        self.save_or_owe();
        change(Step::KeepNames, || {
            for KeptName { name, second, .. } in &kept {
                if let Err(error) = names::keep(name, second, serving[0]) {
                    let path = name.path();
                    tracing::warn!(%error, path = %path.display(), "cannot keep a name that the old generation may remove");
                }
            }
            Ok(())
        })
    }

    /// Gives back what a generation that is gone has removed, and says so.
    ///
    /// # Errors
    ///
    /// Only where a test wants one.
    pub(super) fn give_names_back(&mut self, gone: GenerationId) -> Result<(), Problem> {
        let Some(record) = self.record_if_any(gone.service) else { return Ok(()) };
        let of_it = |it: &&KeptName| it.leaving == gone.number;
        let kept: Vec<_> = record.kept_names.iter().filter(of_it).cloned().collect();
        if kept.is_empty() {
            return Ok(());
        }
        // With nobody left who would go by the name, our own root is as good as any.
        let (number, serving) =
            self.serving_beside(gone).unwrap_or((gone.number, vec![Pid::ours()]));
        let fates = change(Step::GiveNamesBack, || {
            let give = |it: &KeptName| {
                let fate = names::give_back(&it.name, &it.second, serving[0])?;
                let restore = |content| names::restore(&it.name, content, &serving);
                match (fate, it.content.as_ref().map(restore).transpose()) {
                    (Fate::Stayed, Ok(Some(true))) => Ok(Fate::Restored),
                    (fate, restored) => restored.map(|_| fate),
                }
            };
            Ok(kept.iter().map(give).collect::<Vec<io::Result<Fate>>>())
        })?;
        for (KeptName { name, .. }, fate) in kept.iter().zip(fates) {
            let path = name.path();
            let path = path.display();
            let message = match fate {
                Ok(Fate::Stayed) => continue,
                Ok(Fate::GivenBack) => format!(
                    "generation {} removed `{path}` as it ended: given back to generation {number}",
                    gone.number
                ),
                Ok(Fate::Restored) => format!(
                    "generation {} emptied `{path}` as it ended: it names generation {number} again",
                    gone.number
                ),
                Ok(Fate::Unkept) => format!(
                    "generation {} may have removed `{path}`, which generation {number} goes by",
                    gone.number
                ),
                Err(error) => {
                    format!("`{path}` could not be given back to generation {number}: {error}")
                }
            };
            self.note(gone, EventKind::Warning, message);
        }
        self.record_mut(gone.service).kept_names.retain(|it| it.leaving != gone.number);
        self.save_or_owe();
        Ok(())
    }

    /// For a service that is let go of: whatever has a second name still has it for nothing.
    pub(super) fn give_all_names_back(&mut self, id: ServiceId) -> Result<(), Problem> {
        let leaving: Vec<_> = self.record(id).kept_names.iter().map(|it| it.leaving).collect();
        leaving
            .into_iter()
            .try_for_each(|number| self.give_names_back(GenerationId { service: id, number }))
    }

    /// The generation that serves while another one leaves, and its processes.
    fn serving_beside(&self, leaving: GenerationId) -> Option<(GenerationNumber, Vec<Pid>)> {
        let primary = self.record_if_any(leaving.service)?.service.primary()?;
        let number = Some(primary.number).filter(|number| *number != leaving.number)?;
        let pids = self.pids_of(GenerationId { number, ..leaving }).ok()?;
        (!pids.is_empty()).then_some((number, pids))
    }
}

fn kept(leaving: GenerationNumber, name: Name) -> KeptName {
    let file = name.file.as_bytes();
    let second = [b".", file, format!(".of-generation-{leaving}").as_bytes()].concat();
    KeptName { leaving, name, second: OsText::from_bytes(&second), content: None }
}
