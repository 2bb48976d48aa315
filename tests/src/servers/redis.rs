//! Redis: another protocol, one thread, connections that live for ever.

use std::path::Path;

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use super::{Server, THINK, directory};

/// `redis-server`, which tells its generation by the name of its dump file, and never writes it.
#[derive(Debug)]
pub struct Redis {
    directory: TempDir,
    port: u16,
}

impl Redis {
    /// A server for a port.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub fn new(port: u16) -> Result<Self> {
        Ok(Self { directory: directory("redis")?, port })
    }
}

impl Server for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let port = self.port.to_string();
        let file = format!("gen-{generation}.rdb");
        let directory = self.directory.path().display().to_string();
        let arguments = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "::1",
            "--save",
            "",
            "--dbfilename",
            &file,
            "--dir",
            &directory,
        ];
        Ok(["redis-server"].into_iter().chain(arguments).map(str::to_owned).collect())
    }

    fn plan(&self) -> Plan {
        Plan::redis(self.address()).one_shot(200).keep_alive(8, THINK)
    }
}
