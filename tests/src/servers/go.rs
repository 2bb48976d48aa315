//! A plain `net/http` server in Go, which listens with Multipath TCP wherever the kernel has it.

use std::path::{Path, PathBuf};

use agent_load::Plan;
use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{Server, THINK, directory};

/// The program of `tests/servers/go`, built beforehand.
#[derive(Debug)]
pub struct Go {
    directory: TempDir,
    program: PathBuf,
    port: u16,
}

impl Go {
    /// A server for a port.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made, or the program has not been built.
    pub fn new(port: u16) -> Result<Self> {
        let tools = std::env::var_os("AGENT_TEST_TOOLS")
            .map_or_else(|| PathBuf::from(TOOLS), PathBuf::from);
        let program = tools.join("bin/go-server");
        ensure!(
            program.is_file(),
            "there is no `{}`: `cargo xtask setup` builds it",
            program.display()
        );
        Ok(Self { directory: directory("go")?, program, port })
    }
}

impl Server for Go {
    fn name(&self) -> &'static str {
        "go"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let (listen, generation) = (format!(":{}", self.port), generation.to_string());
        let arguments = ["-listen", &listen, "-generation", &generation].map(str::to_owned);
        Ok([self.program.display().to_string()].into_iter().chain(arguments).collect())
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(200).keep_alive(8, THINK).stream(2).upload(2)
    }
}

const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools");
