//! Commands of the agent, and what they leave behind.

use std::fs;
use std::path::Path;
use std::process::Child;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::LIMIT;
use crate::wait;

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it answered.
    pub stdout: String,
    /// What it told on the way.
    pub stderr: String,
}

impl Output {
    /// The answer as JSON.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("the answer is no JSON: {self:?}"))
    }

    /// The output, if the command succeeded.
    ///
    /// # Errors
    ///
    /// If it did not; with all it said.
    pub fn success(self) -> Result<Self> {
        if self.code == Some(0) {
            return Ok(self);
        }
        bail!("exit code {:?}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A command under way. If it is dropped, it goes on.
#[derive(Debug)]
pub struct Pending {
    command: String,
    child: Child,
    answers: TempDir,
}

impl Pending {
    /// `answers` has what it writes to `stdout` and `stderr`.
    pub(super) const fn new(command: String, child: Child, answers: TempDir) -> Self {
        Self { command, child, answers }
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it did not end within two minutes.
    pub fn finish(mut self) -> Result<Output> {
        let ended = wait::until("the command to end", LIMIT, || Ok(self.child.try_wait()?));
        if ended.is_err() {
            // Only the command: the daemon has a guard of its own.
            self.child.kill()?;
            self.child.wait()?;
        }
        let stdout = read(&self.answers.path().join("stdout"))?;
        let stderr = read(&self.answers.path().join("stderr"))?;
        let status = ended.with_context(|| format!("{}\n{stdout}\n{stderr}", self.command))?;
        Ok(Output { code: status.code(), stdout, stderr })
    }

    /// What it has answered and told so far.
    ///
    /// # Errors
    ///
    /// If that cannot be read.
    pub fn said(&self) -> Result<[String; 2]> {
        let read = |name| read(&self.answers.path().join(name));
        Ok([read("stdout")?, read("stderr")?])
    }

    /// Whether it has ended; [`Pending::finish`] then does not wait.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends it as `kill -9` does.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn kill(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "{} has ended already", self.command);
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

/// The command line of an upgrade.
pub fn upgrade(port: u16, options: &[&str], argv: &[String]) -> Vec<String> {
    let port = port.to_string();
    let own = ["upgrade", "--port", &port, "-o", "json"];
    let words = own.iter().chain(options).chain(&["--"]).map(|word| (*word).to_owned());
    words.chain(argv.iter().cloned()).collect()
}

fn read(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}
