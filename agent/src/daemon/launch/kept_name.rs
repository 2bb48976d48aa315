//! A name that has a second one.

use std::io;

use agent_terms::GenerationNumber;
use serde::{Deserialize, Serialize};

use crate::host::{
    names::{
        Name,
        content::{self, Content},
        owners::Owners,
        second::{self, Fate, FileIdentity},
    },
    os_text::OsText,
    process::Pid,
};

/// A name that has a second one as long as another generation may remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptName {
    /// Which generation goes by it.
    pub of: GenerationNumber,
    /// Which one may remove it.
    pub leaving: GenerationNumber,
    /// The name.
    pub name: Name,
    /// What it is called as well, in the same directory.
    pub second: OsText,
    /// The file, which no other one is taken for.
    #[serde(default)]
    pub file: Option<FileIdentity>,
    /// What it holds, if it is a PID file.
    #[serde(default)]
    pub content: Option<Content>,
}

impl KeptName {
    /// A name of a process, which may be kept already as one of those.
    pub(super) fn new(
        of: GenerationNumber,
        leaving: GenerationNumber,
        name: Name,
        process: Pid,
        before: &[Self],
    ) -> io::Result<Self> {
        let file = FileIdentity::of(&name, process)?;
        let content = content::of(&name, process);
        let same = |it: &&Self| it.of == of && it.leaving == leaving && it.name == name;
        let is_kept = |it: &&Self| second::is_kept(&name, &it.second, it.file, process);
        match before.iter().find(same).filter(is_kept) {
            Some(known) if known.file == Some(file) => Ok(Self { content, ..known.clone() }),
            // The other one has taken the name already: this is the file that is to be given back.
            Some(known) => Ok(known.clone()),
            None => {
                let second = second::second_of(&name, leaving.0);
                Ok(Self { of, leaving, name, second, file: Some(file), content })
            }
        }
    }

    /// Whether this is the same name, kept under another one.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.leaving == other.leaving && self.name == other.name && self.second != other.second
    }

    /// Gives it its second name.
    pub(super) fn keep(&self, process: Pid) -> io::Result<()> {
        let file = self.file.ok_or(io::ErrorKind::NotFound)?;
        second::keep(&self.name, &self.second, file, process)
    }

    /// Takes its second name away.
    pub(super) fn drop_second(&self, process: Pid) -> io::Result<()> {
        second::drop_second(&self.name, &self.second, self.file, process)
    }

    /// Ends the second name, now that this generation is gone.
    pub(super) fn settle(&self, serving: &Owners, gone: GenerationNumber) -> io::Result<Fate> {
        if self.of == gone {
            self.drop_second(serving.first())?;
            return Ok(Fate::Stayed);
        }
        let fate = second::give_back(&self.name, &self.second, self.file, serving.first())?;
        let restore = |content| content::restore(&self.name, content, serving);
        match (fate, self.content.as_ref().map(restore).transpose()) {
            (Fate::Stayed, Ok(Some(true))) => Ok(Fate::Restored),
            (fate, restored) => restored.map(|_| fate),
        }
    }
}
