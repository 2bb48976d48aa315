//! nginx as distributions start it: a master that makes a daemon of itself, and workers under another user.

use std::fs;
use std::path::{Path, PathBuf};

use agent_load::Plan;
use anyhow::Result;
use tempfile::TempDir;

use super::{Server, THINK, content, directory};

/// nginx with two workers.
#[derive(Debug)]
pub struct Nginx {
    directory: TempDir,
    port: u16,
    first_also: Option<u16>,
}

impl Nginx {
    /// An nginx for a port.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub fn new(port: u16) -> Result<Self> {
        Ok(Self { directory: directory("nginx")?, port, first_also: None })
    }

    /// Lets the first generation listen on another port too. A port that is not attached is not shared, so that no later
    /// generation could.
    #[must_use]
    pub fn first_also_on(self, port: u16) -> Self {
        Self { first_also: Some(port), ..self }
    }

    fn configuration(&self, generation: u32, content: &Path) -> String {
        let temporary = temporary(self.directory.path());
        let path = self.directory.path().display();
        let ports = [self.port].into_iter().chain(self.first_also.filter(|_| generation == 1));
        let listen: String =
            ports.map(|port| format!("listen {port}; listen [::]:{port};")).collect();
        format!(
            "worker_processes 2;
pid {path}/gen-{generation}.pid;
error_log {path}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    {temporary}
    server {{
        {listen}
        root {};
        # An upload is answered when all of it is there: `mirror` waits for the body, nothing else here would.
        location = /upload {{ mirror /ignored; error_page 404 405 =200 /generation; }}
        location = /ignored {{ internal; return 204; }}
    }}
}}
",
            content.display()
        )
    }
}

/// The words that start an nginx, with its error log in its directory.
pub fn start(directory: &Path, configuration: &Path) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    let log = directory.join("error.log");
    ["nginx", "-p", &text(directory), "-e", &text(&log), "-c", &text(configuration)]
        .map(str::to_owned)
        .to_vec()
}

/// Lines of a configuration: what is written for a while goes into the directory of this nginx.
pub fn temporary(directory: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};", directory.display()))
        .join("\n")
}

impl Server for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, generation: u32) -> Result<Vec<String>> {
        let path = self.directory.path();
        let content = content(path, generation)?;
        let configuration = path.join(format!("gen-{generation}.conf"));
        fs::write(&configuration, self.configuration(generation, &content))?;
        Ok(start(path, &configuration))
    }

    fn plan(&self) -> Plan {
        Plan::http(self.address()).one_shot(200).keep_alive(8, THINK).stream(2)
    }

    fn pid_file(&self, generation: u32) -> Option<PathBuf> {
        Some(self.directory.path().join(format!("gen-{generation}.pid")))
    }
}
