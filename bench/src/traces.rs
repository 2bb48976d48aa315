//! Whether anything is left of a run, however it ended.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use tests::agent::Agent;
use tests::namespace::Namespace;
use tests::process::Handle;
use tests::servers::Server;
use tests::wait;

/// Everything that a run makes.
#[derive(Debug)]
pub(crate) struct Traces {
    /// What `/proc/PID/ns/net` says of a process that is in its namespace.
    namespace: PathBuf,
    paths: Vec<(&'static str, PathBuf)>,
}

impl Traces {
    /// What an agent and servers in a namespace make.
    pub(crate) fn of(
        namespace: &Namespace,
        agent: &Agent,
        servers: &[&dyn Server],
    ) -> Result<Self> {
        let namespace = namespace.enter(|| Ok(fs::read_link("/proc/thread-self/ns/net")?))?;
        let mut paths = vec![
            ("pins", agent.pins().to_owned()),
            ("control group", agent.cgroup().to_owned()),
            ("runtime directory", agent.runtime().to_owned()),
        ];
        let files = |server: &&dyn Server| ("files of the server", server.directory().to_owned());
        paths.extend(servers.iter().map(files));
        Ok(Self { namespace, paths })
    }

    /// Names what is left, after a moment for what is just ending. Processes are ended then: they can only be ours.
    pub(crate) fn left_behind(&self) -> Result<Vec<String>> {
        // What is left after the wait is what the list below names.
        wait::until("everything to end", LIMIT, || {
            Ok(self.inhabitants()?.is_empty().then_some(()))
        })
        .ok();
        let mut left = Vec::new();
        for pid in self.inhabitants()? {
            // One that has ended by now is not left.
            if let Ok(process) = Handle::open(pid)
                && self.is_inside(pid)
            {
                left.push(format!("process {pid} ({})", process.program().display()));
                process.kill()?;
            }
        }
        for (what, path) in &self.paths {
            if path.exists() {
                left.push(format!("{what} `{}`", path.display()));
            }
        }
        Ok(left)
    }

    /// The processes in the namespace, which lives as long as there is one, with ourselves if a thread is still there.
    fn inhabitants(&self) -> Result<Vec<i32>> {
        let entries = fs::read_dir("/proc").context("list the processes")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter(|pid| self.is_inside(*pid)).collect())
    }

    fn is_inside(&self, pid: i32) -> bool {
        // Only our own threads may be in other namespaces than their process.
        let tasks = match pid.unsigned_abs() == std::process::id() {
            true => fs::read_dir("/proc/self/task").map_or_else(
                |_| Vec::new(),
                |tasks| tasks.filter_map(|task| Some(task.ok()?.path())).collect(),
            ),
            false => vec![PathBuf::from(format!("/proc/{pid}"))],
        };
        tasks.iter().any(|task| {
            fs::read_link(task.join("ns/net")).is_ok_and(|namespace| namespace == self.namespace)
        })
    }
}

const LIMIT: Duration = Duration::from_secs(5);
