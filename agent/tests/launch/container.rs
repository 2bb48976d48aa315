//! A process in namespaces of its own.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use agent::host::process::{Pid, Process};
use anyhow::{Context as _, Result};

/// A process in namespaces of its own; all in them end when it does.
pub(crate) struct Container {
    unshare: Child,
    pub(crate) inside: Process,
}

impl Container {
    pub(crate) fn start(options: &[&str]) -> Result<Self> {
        let script = "hostname elsewhere; echo ready; exec sleep 60";
        let mut unshare = Command::new("unshare")
            .args(["--fork", "--kill-child", "--pid", "--uts", "--mount"])
            .args(options)
            .args(["sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0; 6];
        let output = unshare.stdout.as_mut().context("the container's output")?;
        std::io::Read::read_exact(output, &mut ready).context("the container did not start")?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id()))?;
        let pid = children
            .trim()
            .parse()
            .ok()
            .and_then(Pid::new)
            .context("the container's first process")?;
        Ok(Self { inside: Process::open(pid)?, unshare })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.unshare.kill().expect("our own child can be killed");
        self.unshare.wait().expect("our own child can be waited for");
    }
}
