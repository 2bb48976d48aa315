//! The services of a run: real servers, each with clients of all four classes, and versions of it that are broken.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use agent_load::{KeepAlive, Pace, Plan, Stream, Upload};
use anyhow::{Context as _, Result};

use super::event::Workers;
use tests::agent::Agent;
use tests::namespace::Namespace;
use tests::servers::{Go, Hostile, Nginx, Node, Prefork, Script, Server};

/// A service's server, and how its broken versions listen.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) server: Box<dyn Server + Sync>,
    /// What a version that listens at all has to listen on: as many listeners as the server has.
    addresses: &'static [&'static str],
    rate: u32,
    pub(super) workers: Workers,
}

/// All services.
pub(super) fn cast() -> Result<Vec<Role>> {
    const BOTH: &[&str] = &["--address", "0.0.0.0", "--address", "::"];
    const DUAL: &[&str] = &["--address", "::"];
    Ok(vec![
        Role::alone(Box::new(Nginx::new(8080)?), BOTH, 150),
        Role::alone(Box::new(Node::new(8081)?), DUAL, 100),
        Role::alone(Box::new(Go::new(8082)?), DUAL, 150),
        Role { workers: Workers::Some, ..Role::alone(Box::new(Prefork::new(8083, 2)?), &[], 40) },
    ])
}

/// One that attacks the first of them.
pub(super) fn hostile(cast: &[Role], agent: &Agent) -> Result<Hostile> {
    let neighbour = cast.first().context("somebody to attack")?.server.port();
    Hostile::new(HOSTILE, neighbour, &agent.runtime().join("agent.sock"))
}

const HOSTILE: u16 = 8090;

impl Role {
    fn alone(
        server: Box<dyn Server + Sync>,
        addresses: &'static [&'static str],
        rate: u32,
    ) -> Self {
        Self { server, addresses, rate, workers: Workers::None }
    }

    /// Clients of all classes. None stays for longer than some seconds, because each drain waits for all of them.
    pub(super) fn plan(&self, namespace: &Namespace) -> Plan {
        let plan = Plan::http(self.server.address()).one_shot(self.rate);
        let serves_files = self.workers == Workers::None;
        Plan {
            keep_alive: Some(KeepAlive {
                connections: 6,
                pace: Pace::Think(Duration::from_millis(50)),
                requests: Some(40),
            }),
            stream: serves_files.then(|| Stream {
                connections: 2,
                bytes: 128 << 10,
                pause: Duration::from_millis(60),
                receive_buffer: 128 << 10,
                ..Stream::default()
            }),
            upload: serves_files.then(|| Upload { connections: 2, bytes: 20, ..Upload::default() }),
            ..plan.namespace(namespace.descriptor())
        }
    }

    /// A version that listens after a time that nobody waits for.
    pub(super) fn late(&self, generation: u32) -> Result<Broken> {
        Broken::new(self, generation, &["--after", "1000"])
    }

    /// A version that listens and accepts nothing.
    pub(super) fn deaf(&self, generation: u32) -> Result<Broken> {
        Broken::new(self, generation, &["--deaf"])
    }

    /// A version that dies with the first request of the connection of a number, having written down the clients of all so far.
    /// Probes ask for nothing: it dies by its clients, after the switch.
    pub(super) fn crashing(&self, generation: u32, connection: u32) -> Result<Broken> {
        let words = self.last_words(generation).display().to_string();
        let number = connection.to_string();
        Broken::new(self, generation, &["--crash-at", &number, "--last-words", &words])
    }

    /// Removes the files of all generations but the one that serves: those of nginx are some megabytes each.
    pub(super) fn tidy(&self, serving: u32) -> Result<()> {
        let keep = format!("gen-{serving}");
        for entry in fs::read_dir(self.server.directory())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("gen-") && name != keep && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Where that version writes.
    pub(super) fn last_words(&self, generation: u32) -> PathBuf {
        self.server.directory().join(format!("last-words-{generation}"))
    }
}

/// A version that does not last.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) command: Vec<String>,
    /// Holds its files.
    _script: Script,
}

impl Broken {
    fn new(role: &Role, generation: u32, options: &[&str]) -> Result<Self> {
        let script = Script::with(role.server.port(), &[role.addresses, options].concat())?;
        Ok(Self { command: script.command(generation)?, _script: script })
    }
}
