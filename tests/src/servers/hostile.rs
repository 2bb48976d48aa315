//! A server that is not root, and does to whoever manages it what it can.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use super::Server;
use super::commanded::with_scripts;

/// `hostile.py`, with the lowest priority: what it takes of the processor is not the agent's to limit.
#[derive(Debug)]
pub struct Hostile {
    directory: TempDir,
    port: u16,
    neighbour: u16,
    control: PathBuf,
}

impl Hostile {
    /// Nobody else's on the machine.
    pub const USER: u32 = 54_321;

    /// One that attacks a neighbour's port and the agent's control socket.
    ///
    /// # Errors
    ///
    /// If its folder cannot be made.
    pub fn new(port: u16, neighbour: u16, control: &Path) -> Result<Self> {
        let directory = with_scripts("hostile")?;
        chown(directory.path(), Some(Self::USER), None)?;
        Ok(Self { directory, port, neighbour, control: control.to_owned() })
    }
}

impl Server for Hostile {
    fn name(&self) -> &'static str {
        "hostile"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The first one becomes its user by itself, which the others are given.
    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let user = Self::USER.to_string();
        let folder = self.directory.path();
        let become_user =
            ["nice", "-n", "19", "setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
        let first = if generation == 1 { &become_user[..] } else { &[] };
        let own = [
            "/usr/bin/python3".to_owned(),
            folder.join("hostile.py").display().to_string(),
            self.port.to_string(),
            self.neighbour.to_string(),
            generation.to_string(),
            folder.display().to_string(),
            self.control.display().to_string(),
        ];
        Ok(first.iter().map(|word| (*word).to_owned()).chain(own).collect())
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(50)
    }
}
