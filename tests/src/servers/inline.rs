//! A server of a few lines, for what one test is about.

use std::fs;
use std::path::Path;

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use super::{Server, directory};

/// `python3 server.py GENERATION`, where the last line of the file serves with an answer of its own.
#[derive(Debug)]
pub struct Inline {
    directory: TempDir,
    port: u16,
    prefix: Vec<String>,
}

impl Inline {
    /// A server that runs these lines once it listens; `answer` is the number that it answers with.
    ///
    /// # Errors
    ///
    /// If its files cannot be written.
    pub fn new(port: u16, lines: &str) -> Result<Self> {
        let directory = directory("inline")?;
        fs::write(directory.path().join("server.py"), format!("{BEFORE}{lines}{AFTER}"))?;
        Ok(Self { directory, port, prefix: Vec::new() })
    }

    /// The first generation is started through this command.
    #[must_use]
    pub fn first_through(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }
}

impl Server for Inline {
    fn name(&self) -> &'static str {
        "inline"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let script = self.directory().join("server.py").display().to_string();
        // Whatever stands before it in the PATH may be for its owner alone.
        let words = ["/usr/bin/python3", &script, &self.port.to_string(), &generation.to_string()];
        let prefix = if generation == 1 { &self.prefix[..] } else { &[] };
        Ok(prefix.iter().cloned().chain(words.map(str::to_owned)).collect())
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(50)
    }
}

/// Dual-stack, so that either family can be asked.
const BEFORE: &str = "import os, resource, socket, subprocess, sys
port, answer = int(sys.argv[1]), int(sys.argv[2])
def new_listener():
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return listener
listener = new_listener()
";

const AFTER: &str = "
while True:
    connection, _ = listener.accept()
    connection.recv(9999)
    body = f'{answer}\\n'.encode()
    connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % len(body) + body)
    connection.close()
";
