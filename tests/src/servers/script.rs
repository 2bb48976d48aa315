//! A small server of our own, which can be told to misbehave.

use std::fs;
use std::path::Path;

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use super::{Server, directory};

/// `python3 server.py`.
#[derive(Debug)]
pub struct Script {
    directory: TempDir,
    port: u16,
    options: Vec<String>,
}

impl Script {
    /// A server for a port.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub fn new(port: u16) -> Result<Self> {
        Self::with(port, &[])
    }

    /// A server that is given more options, see the script.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub fn with(port: u16, options: &[&str]) -> Result<Self> {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let directory = directory("script")?;
        // Other users may have no way to where the tests are.
        fs::copy(SCRIPT, directory.path().join("server.py"))?;
        Ok(Self { directory, port, options })
    }
}

impl Server for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let script = self.directory().join("server.py").display().to_string();
        let own = ["python3", &script, &self.port.to_string(), &generation.to_string()];
        Ok(own.into_iter().map(str::to_owned).chain(self.options.iter().cloned()).collect())
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(50)
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/python/server.py");
