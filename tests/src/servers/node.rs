//! A plain HTTP server in Node.

use std::path::Path;

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use super::{Server, THINK, directory};

/// `node server.js`.
#[derive(Debug)]
pub struct Node {
    directory: TempDir,
    port: u16,
}

impl Node {
    /// A server for a port.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub fn new(port: u16) -> Result<Self> {
        Ok(Self { directory: directory("node")?, port })
    }
}

impl Server for Node {
    fn name(&self) -> &'static str {
        "node"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        Ok(vec![
            "node".to_owned(),
            SCRIPT.to_owned(),
            self.port.to_string(),
            generation.to_string(),
        ])
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(200).keep_alive(8, THINK).stream(2).upload(2)
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/node/server.js");
