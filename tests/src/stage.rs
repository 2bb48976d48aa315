//! A namespace with an agent of its own, and what nearly every test does there.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use ::agent::datapath::Group;
use ::agent::host::sock_diag::{self, Connection, Listener};
use agent_api::{Attached, GenerationState, GenerationView, ServiceState, ServiceView};
use agent_load::{Load, Plan, Running};
use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, Pending, upgrade};
use crate::namespace::Namespace;
use crate::process::Handle;
use crate::servers::{self, Server, Started};
use crate::wait;

/// A namespace and an agent.
#[derive(Debug)]
pub struct Stage {
    /// Where everything runs.
    pub namespace: Namespace,
    /// The agent, not started.
    pub agent: Agent,
}

impl Stage {
    /// Makes both.
    ///
    /// # Errors
    ///
    /// Without the right to do so, or if the agent has not been built.
    pub fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        let agent = Agent::new(&namespace)?;
        Ok(Self { namespace, agent })
    }

    /// Makes both, starts generation 1 of a server and attaches.
    ///
    /// # Errors
    ///
    /// If any of it fails.
    pub fn attached(server: &dyn Server) -> Result<(Self, Started)> {
        let stage = Self::new()?;
        let started = stage.start(server, 1)?;
        stage.agent.attach(server.port())?.success()?;
        Ok((stage, started))
    }

    /// Starts a generation of a server, without the agent.
    ///
    /// # Errors
    ///
    /// If it does not listen in time.
    pub fn start(&self, server: &dyn Server, generation: u32) -> Result<Started> {
        servers::start(server, &self.namespace, generation)
    }

    /// Upgrades to a generation of a server, and waits until it takes all new connections.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn switch(&self, server: &dyn Server, generation: u32, options: &[&str]) -> Result<()> {
        let argv = server.command(generation)?;
        self.agent.switch(server.port(), options, &argv)?.success().map(drop)
    }

    /// Detaches, and then ends the generation that would go on: outside the agent's cgroup nobody else does.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn detach(&self, port: u16) -> Result<()> {
        let service = self.agent.service(port)?;
        let pids = service.generations.iter().flat_map(|generation| &generation.pids);
        // One of them may end by itself.
        let processes: Vec<_> = pids.filter_map(|pid| Handle::open(*pid).ok()).collect();
        self.agent.detach(port)?.success()?;
        processes.iter().try_for_each(Handle::kill)
    }

    /// Starts clients.
    ///
    /// # Errors
    ///
    /// If the plan cannot be started.
    pub fn load(&self, plan: Plan) -> Result<Running> {
        Ok(Load::start(plan.namespace(self.namespace.descriptor()))?)
    }

    /// Starts clients of every class but slow uploads, and waits until generation 1 has answered some.
    ///
    /// # Errors
    ///
    /// If they cannot be started, or are not answered.
    pub fn busy(&self, server: &dyn Server) -> Result<Running> {
        let running = self.load(Plan { upload: None, ..server.plan().one_shot(100) })?;
        until_answers(&running, 1, 20)?;
        Ok(running)
    }

    /// Begins an upgrade to generation 2 of a server, and waits until the first one drains.
    ///
    /// # Errors
    ///
    /// If it does not in time.
    pub fn begin_drain(&self, server: &dyn Server) -> Result<Pending> {
        let words = upgrade(server.port(), &[], &server.command(2)?);
        let upgrade = self.agent.start(&mut self.agent.command(&words))?;
        self.until("the drain", server.port(), |service| {
            service.generations[0].state == GenerationState::Draining
        })?;
        Ok(upgrade)
    }

    /// Connects a client of the test itself.
    ///
    /// # Errors
    ///
    /// If nobody takes the connection.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        self.namespace.enter(|| {
            let stream = TcpStream::connect_timeout(&address, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Ok(stream)
        })
    }

    /// Which generation answers one request on a new connection.
    ///
    /// # Errors
    ///
    /// If none does.
    pub fn generation(&self, address: SocketAddr) -> Result<u32> {
        ask(&mut self.connect(address)?)
    }

    /// Lets new connections come until there are so many answers, which must all be there.
    ///
    /// # Errors
    ///
    /// If one of them fails.
    pub async fn answers(&self, server: &dyn Server, count: u64) -> Result<BTreeMap<u32, u64>> {
        let mut plan = Plan { keep_alive: None, stream: None, upload: None, ..server.plan() };
        plan = plan.one_shot(100);
        let running = self.load(plan)?;
        wait::until("answers", LIMIT, || Ok((running.snapshot().answers() >= count).then_some(())))
            .with_context(|| running.snapshot().to_string())?;
        let summary = running.stop().await.summary;
        ensure!(summary.failures() == 0, "{summary}");
        Ok(summary.generations())
    }

    /// The server's side of every connection to a port, as the kernel lists them.
    ///
    /// # Errors
    ///
    /// If the kernel does not.
    pub fn flows(&self, port: u16) -> Result<Vec<Connection>> {
        self.namespace.enter(|| Ok(sock_diag::connections(&[port], None)?))
    }

    /// All listeners of the namespace, as the kernel lists them.
    ///
    /// # Errors
    ///
    /// If the kernel does not.
    pub fn listeners(&self) -> Result<Vec<Listener>> {
        self.namespace.enter(|| Ok(sock_diag::listeners()?))
    }

    /// Takes the program `migrate` away from the listeners on a port.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn switch_off_migrate(&self, port: u16) -> Result<()> {
        self.namespace.enter(|| {
            for listener in sock_diag::listeners_on(port)? {
                let address = (listener.address, listener.port).into();
                let group = Group { address, v6only: listener.v6only, uid: listener.uid };
                group.detach_migrate()?;
            }
            Ok(())
        })
    }

    /// Takes charge of a port with more options than that, and tells what came of it.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn attach(&self, port: u16, options: &[&str]) -> Result<Attached> {
        let port = port.to_string();
        let words = [&["attach", "--port", &port, "-o", "json"], options].concat();
        Ok(serde_json::from_str(&self.agent.run(&words)?.success()?.stdout)?)
    }

    /// Runs a command that has to be refused with this exit code, and returns what it said.
    ///
    /// # Errors
    ///
    /// If it was not refused, or otherwise.
    pub fn refused(&self, words: &[&str], code: i32) -> Result<String> {
        let output = self.agent.run(words)?;
        ensure!(output.code == Some(code), "exit code {code} was expected: {output:?}");
        Ok(output.stderr)
    }

    /// Waits until the service on a port is as wanted.
    ///
    /// # Errors
    ///
    /// If it is not in time; with what it is.
    pub fn until(
        &self,
        what: &str,
        port: u16,
        wanted: impl Fn(&ServiceView) -> bool,
    ) -> Result<ServiceView> {
        let mut last = None;
        let reached = wait::until(what, LIMIT, || {
            let service = last.insert(self.agent.service(port)?);
            Ok(wanted(service).then(|| service.clone()))
        });
        reached.with_context(|| format!("{last:#?}"))
    }

    /// Waits until one generation is left and no rollout is under way.
    ///
    /// # Errors
    ///
    /// If that is not so in time.
    pub fn until_steady(&self, port: u16) -> Result<ServiceView> {
        self.until("one generation to be left", port, |service| {
            service.state == ServiceState::Steady && service.generations.len() == 1
        })
    }

    /// All that the agent has in the file systems of the kernel and of the machine: pins, cgroups, runtime files.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read.
    pub fn traces(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for root in [self.agent.pins(), self.agent.cgroup(), self.agent.runtime()] {
            collect(root, &mut found)?;
        }
        found.sort();
        Ok(found)
    }
}

/// Directories, and files except those that the kernel puts into every cgroup.
fn collect(path: &std::path::Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    found.push(path.to_owned());
    if !path.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let is_directory = entry.file_type()?.is_dir();
        if is_directory || !path.join("cgroup.procs").exists() {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// Asks for the generation on a connection that stays open.
///
/// # Errors
///
/// If the answer is none.
pub fn ask(stream: &mut TcpStream) -> Result<u32> {
    ask_on(stream, b"GET /generation HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// Sends a request, or what is left of one, and reads the generation that answers it.
///
/// # Errors
///
/// If the answer is none.
pub fn ask_on(stream: &mut TcpStream, request: &[u8]) -> Result<u32> {
    stream.write_all(request)?;
    let mut received = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let read = match stream.read(&mut bytes) {
            // The end of a child, say: the kernel begins no call anew that has a timeout.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        received.extend_from_slice(&bytes[..read]);
        let text = String::from_utf8_lossy(&received);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        match body.map(|body| body.trim().parse()) {
            Some(Ok(generation)) => return Ok(generation),
            // Node sends chunks: the number is the second of the three lines.
            Some(Err(_)) if body.is_some_and(|body| body.ends_with("0\r\n\r\n")) => {
                let line = body.and_then(|body| body.split("\r\n").nth(1)).unwrap_or_default();
                return Ok(line.trim().parse()?);
            }
            Some(Err(_)) | None => ensure!(read > 0, "the connection ended after: {text}"),
        }
    }
}

/// Waits until a generation has given so many answers to the clients of a run.
///
/// # Errors
///
/// If it does not in time; with what was seen instead.
pub fn until_answers(running: &Running, generation: u32, count: u64) -> Result<()> {
    wait::until("answers of a generation", LIMIT, || {
        let seen = running.snapshot().generations();
        Ok((seen.get(&generation).copied().unwrap_or(0) >= count).then_some(()))
    })
    .with_context(|| format!("generation {generation}: {}", running.snapshot()))
}

/// Ends clients, of which none may have been failed.
///
/// # Panics
///
/// If one was, with what it saw.
pub async fn nobody_noticed(running: Running) {
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
}

/// How many connections a run has begun.
pub fn connections(running: &Running) -> u64 {
    running.snapshot().classes.values().map(|class| class.connections).sum()
}

/// The generations of a service by number.
pub fn generations(service: &ServiceView) -> BTreeMap<u32, &GenerationView> {
    service.generations.iter().map(|generation| (generation.number.0, generation)).collect()
}

/// Generous: what is waited for takes milliseconds on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(30);
