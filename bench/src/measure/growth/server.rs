//! nginx for many connections, many ports or many generations.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use tests::servers::{Server, directory, nginx};

/// An nginx whose size is chosen. It waits for the first byte of a connection as long as nobody ends it.
#[derive(Debug)]
pub(super) struct Wide {
    directory: TempDir,
    ports: Range<u16>,
    /// Of the first generation only, and never attached.
    direct: Option<u16>,
    workers: u32,
    connections: u32,
}

impl Wide {
    /// One for these ports, with one worker for a few connections.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub(super) fn new(ports: Range<u16>) -> Result<Self> {
        let connections = 512 + u32::try_from(ports.len())?;
        Ok(Self { directory: directory("wide")?, ports, direct: None, workers: 1, connections })
    }

    /// Lets the first generation listen on another port too.
    #[must_use]
    pub(super) fn first_also_on(self, port: u16) -> Self {
        Self { direct: Some(port), ..self }
    }

    /// Gives it as many workers, each with listeners of its own, as it takes to have so many connections: the kernel spreads
    /// them, but not evenly.
    #[must_use]
    pub(super) fn for_connections(self, count: u32) -> Self {
        Self { workers: count.div_ceil(PER_WORKER).max(2), connections: 2 * PER_WORKER, ..self }
    }

    /// As arguments of the agent.
    pub(super) fn port_list(&self) -> String {
        let ports: Vec<String> = self.ports.clone().map(|port| port.to_string()).collect();
        ports.join(",")
    }

    /// The last of its ports.
    pub(super) fn last_port(&self) -> u16 {
        self.ports.end - 1
    }

    fn configuration(&self, generation: u32) -> String {
        let temporary = nginx::temporary(self.directory.path());
        let path = self.directory.path().display();
        let Self { workers, connections, .. } = self;
        let direct = self.direct.filter(|_| generation == 1);
        let reuse = if *workers > 1 { " reuseport" } else { "" };
        let listen = |port| format!("listen {port} backlog=4096{reuse};\n");
        let listens: String = self.ports.clone().chain(direct).map(listen).collect();
        format!(
            "worker_processes {workers};
pid {path}/gen-{generation}.pid;
error_log {path}/error.log;
events {{ worker_connections {connections}; }}
http {{
access_log off;
client_header_timeout 1d;
{temporary}
server {{
{listens}location = /generation {{ return 200 \"{generation}\\n\"; }}
}}
}}
"
        )
    }
}

impl Server for Wide {
    fn name(&self) -> &'static str {
        "wide nginx"
    }

    fn port(&self) -> u16 {
        self.ports.start
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let path = self.directory.path();
        let configuration = path.join(format!("gen-{generation}.conf"));
        fs::write(&configuration, self.configuration(generation))?;
        Ok(nginx::start(path, &configuration))
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address())
    }

    fn pid_file(&self, generation: u32) -> Option<PathBuf> {
        Some(self.directory.path().join(format!("gen-{generation}.pid")))
    }
}

/// How many connections a worker has in the mean: less than half of the descriptors that a process may have here.
const PER_WORKER: u32 = 9_000;
