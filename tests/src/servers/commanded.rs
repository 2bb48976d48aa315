//! A server that is started as the test says, by a command line of its own.

use std::fs;
use std::path::Path;

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use super::{Server, directory};

/// A command line, with our own scripts at hand.
#[derive(Debug)]
pub struct Commanded {
    directory: TempDir,
    port: u16,
    command: Vec<String>,
}

impl Commanded {
    /// A server for a port. In the command, `{}` stands for the folder with `server.py`, `super.py` and `ring.py`.
    ///
    /// # Errors
    ///
    /// If that folder cannot be made.
    pub fn new(port: u16, command: &[&str]) -> Result<Self> {
        let directory = with_scripts("commanded")?;
        let folder = directory.path().display().to_string();
        let command = command.iter().map(|word| word.replace("{}", &folder)).collect();
        Ok(Self { directory, port, command })
    }
}

/// A directory with our own scripts in it: other users may have no way to where the tests are.
pub(super) fn with_scripts(name: &str) -> Result<TempDir> {
    let directory = directory(name)?;
    for entry in fs::read_dir(SCRIPTS)? {
        let entry = entry?;
        fs::copy(entry.path(), directory.path().join(entry.file_name()))?;
    }
    Ok(directory)
}

impl Server for Commanded {
    fn name(&self) -> &'static str {
        "commanded"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, _generation: u32) -> Result<Vec<String>> {
        Ok(self.command.clone())
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(50)
    }
}

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/python");
