//! Where the agent keeps what it touches: three directories, so that several agents can live side by side.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directories of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Control socket, state file, logs of launched generations. Made `0700`; one that is there keeps its mode.
    pub runtime_dir: PathBuf,
    /// Pinned maps and links; on a BPF file system. `0700`.
    pub pin_dir: PathBuf,
    /// Launched generations live in cgroups below this one; on cgroup v2. `None`: `agent` below the mount point.
    pub cgroup: Option<PathBuf>,
}

impl Places {
    /// Default of [`Self::runtime_dir`].
    pub const RUNTIME_DIR: &str = "/run/agent";
    /// Default of [`Self::pin_dir`].
    pub const PIN_DIR: &str = "/sys/fs/bpf/agent";
    /// Name of the default cgroup, below the cgroup v2 mount.
    pub const CGROUP: &str = "agent";

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("agent.sock")
    }

    /// What the agent knows besides the maps.
    pub fn state_file(&self) -> PathBuf {
        self.runtime_dir.join("state.json")
    }

    /// Whatever an agent has in its runtime directory, but for logs. The state first: whoever finds one takes it for something
    /// that is attached.
    pub(crate) fn files(&self) -> [PathBuf; 6] {
        let state = self.state_file();
        let aside = Self::aside(&state);
        [state, aside, self.above_file(), self.pid_file(), self.socket(), self.lock_file()]
    }

    /// Where the next content of a file is written, before it takes the place of the old one.
    pub(crate) fn aside(path: &Path) -> PathBuf {
        path.with_extension("new")
    }

    /// Which directories above these were made for them.
    pub(crate) fn above_file(&self) -> PathBuf {
        self.runtime_dir.join("above.json")
    }

    /// Locked by the one agent that may write.
    pub fn lock_file(&self) -> PathBuf {
        self.runtime_dir.join("lock")
    }

    /// The running agent's process number.
    pub fn pid_file(&self) -> PathBuf {
        self.runtime_dir.join("agent.pid")
    }

    /// Where an agent that `attach` started in the background logs to.
    pub fn log_file(&self) -> PathBuf {
        self.runtime_dir.join("agent.log")
    }

    /// The same, with what was cut off of it.
    pub(crate) fn logs(&self) -> [PathBuf; 2] {
        [self.log_file(), self.log_file().with_extension("earlier")]
    }

    /// One directory for each service.
    pub fn services_dir(&self) -> PathBuf {
        self.runtime_dir.join("services")
    }

    /// Logs of one service's generations.
    pub fn service_dir(&self, service: &str) -> PathBuf {
        self.services_dir().join(service)
    }

    /// Whether these are the default directories.
    pub fn are_default(&self) -> bool {
        self.runtime_dir == Path::new(Self::RUNTIME_DIR)
            && self.pin_dir == Path::new(Self::PIN_DIR)
            && self.cgroup.is_none()
    }
}
