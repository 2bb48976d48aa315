//! Python's own file server: HTTP/1.0, a thread for each connection, and room for five connections in its queue.

use std::path::Path;

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use super::{Server, content, directory};

/// `python3 -m http.server`.
#[derive(Debug)]
pub struct Python {
    directory: TempDir,
    port: u16,
}

impl Python {
    /// A file server for a port.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub fn new(port: u16) -> Result<Self> {
        Ok(Self { directory: directory("python")?, port })
    }
}

impl Server for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let content = content(self.directory.path(), generation)?.display().to_string();
        let port = self.port.to_string();
        Ok(["python3", "-m", "http.server", &port, "--directory", &content]
            .map(str::to_owned)
            .to_vec())
    }

    fn plan(&self) -> Plan {
        // It keeps no connection, and a higher rate overflows its short queue without any upgrade.
        Plan::http(self.address()).one_shot(50).stream(2)
    }
}
