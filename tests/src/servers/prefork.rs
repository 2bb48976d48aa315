//! A master that holds no listener, whose workers each have their own.

use std::fs;
use std::path::Path;

use agent_load::Plan;
use anyhow::Result;

use super::{Script, Server};

/// `python3 prefork.py`, with so many workers.
#[derive(Debug)]
pub struct Prefork {
    worker: Script,
    workers: u32,
}

impl Prefork {
    /// A server for a port.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub fn new(port: u16, workers: u32) -> Result<Self> {
        let worker = Script::new(port)?;
        fs::copy(SCRIPT, worker.directory().join("prefork.py"))?;
        Ok(Self { worker, workers })
    }
}

impl Server for Prefork {
    fn name(&self) -> &'static str {
        "prefork"
    }

    fn port(&self) -> u16 {
        self.worker.port()
    }

    fn directory(&self) -> &Path {
        self.worker.directory()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let in_directory = |name: &str| self.directory().join(name).display().to_string();
        let (master, worker) = (in_directory("prefork.py"), in_directory("server.py"));
        let numbers = [u32::from(self.port()), generation, self.workers].map(|it| it.to_string());
        Ok(["python3".to_owned(), master, worker].into_iter().chain(numbers).collect())
    }

    fn plan(&self) -> Plan {
        self.worker.plan()
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/python/prefork.py");
