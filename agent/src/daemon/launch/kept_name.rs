//! A name that has a second one.

use std::io;

use agent_terms::GenerationNumber;
use serde::{Deserialize, Serialize};

use crate::host::{
    names::{
        Name,
        content::{self, Content},
        owners::Owners,
        second::{self, Fate},
    },
    os_text::OsText,
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
    /// What it holds, if it is a PID file.
    #[serde(default)]
    pub content: Option<Content>,
}

impl KeptName {
    pub(super) fn new(of: GenerationNumber, leaving: GenerationNumber, name: Name) -> Self {
        let second = second::second_of(&name, leaving.0);
        Self { of, leaving, name, second, content: None }
    }

    /// Ends the second name, now that this generation is gone.
    pub(super) fn settle(&self, serving: &Owners, gone: GenerationNumber) -> io::Result<Fate> {
        if self.of == gone {
            second::drop_second(&self.name, &self.second, serving.first())?;
            return Ok(Fate::Stayed);
        }
        let fate = second::give_back(&self.name, &self.second, serving.first())?;
        let restore = |content| content::restore(&self.name, content, serving);
        match (fate, self.content.as_ref().map(restore).transpose()) {
            (Fate::Stayed, Ok(Some(true))) => Ok(Fate::Restored),
            (fate, restored) => restored.map(|_| fate),
        }
    }
}
