//! The agent's command line.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_api::{ServiceView, Services};
use anyhow::{Context as _, Result, bail};

use super::{AGENT, PORT, SERVER};
use crate::agent::Output;
use crate::wait;

/// Runs a command of the agent to its end, and tells how it went.
///
/// # Errors
///
/// If it cannot be started, or does not end within [`LIMIT`].
pub(super) fn run(arguments: &[&str]) -> Result<Output> {
    let typed = format!("agent {}", arguments.join(" "));
    println!("{typed}");
    let began = Instant::now();
    // Files and not pipes: the agent in the background may inherit them, and a pipe would then not end with the command.
    let [stdout, stderr] = ["/tmp/stdout", "/tmp/stderr"];
    let mut child = Command::new(AGENT)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(stdout)?)
        .stderr(File::create(stderr)?)
        .spawn()
        .with_context(|| format!("start `{typed}`"))?;
    let status = match wait::until("its end", LIMIT, || Ok(child.try_wait()?)) {
        Ok(status) => status,
        Err(error) => {
            child.kill()?;
            child.wait()?;
            return Err(error.context(format!("`{typed}`")));
        }
    };
    let [stdout, stderr] = [stdout, stderr].map(fs::read_to_string);
    let output = Output { code: status.code(), stdout: stdout?, stderr: stderr? };
    let took = began.elapsed().as_secs_f32();
    println!("{}{}  exit code {}, {took:.1} s", output.stdout, output.stderr, code(&output));
    Ok(output)
}

/// Runs a command that has to end with `expected`.
///
/// # Errors
///
/// If it ends with another exit code, and as [`run`].
pub(super) fn expect(expected: i32, arguments: &[&str]) -> Result<Output> {
    let output = run(arguments)?;
    if output.code == Some(expected) {
        return Ok(output);
    }
    let words = [output.stderr.as_str(), &output.stdout].concat();
    // What is as it should be is most of what `doctor` says.
    let telling = words.lines().map(str::trim).filter(|line| !line.contains(" ok "));
    let words: Vec<_> = telling.take(WORDS).collect();
    let (typed, words) = (arguments.join(" "), words.join(" / "));
    bail!("`agent {typed}` ended with {} and not {expected}: {words}", code(&output))
}

/// Upgrades to a generation of the server.
///
/// # Errors
///
/// As [`expect`].
pub(super) fn upgrade(generation: u32, options: &[&str]) -> Result<()> {
    let (port, generation) = (PORT.to_string(), generation.to_string());
    // A good version shows that it is one much sooner than the default leaves to it.
    let mut arguments = vec!["upgrade", "--port", &port, "--settle", "1s"];
    arguments.extend(options);
    arguments.extend(["--", SERVER, &generation]);
    expect(0, &arguments).map(drop)
}

/// What the agent knows of the server.
///
/// # Errors
///
/// As [`expect`], and if the answer is none.
pub(super) fn status() -> Result<ServiceView> {
    let answer = expect(0, &["status", "-o", "json"])?;
    let mut services: Services = serde_json::from_str(&answer.stdout)?;
    services.services.pop().context("the agent knows no service")
}

fn code(output: &Output) -> String {
    output.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string())
}

/// Less than the machine has for all, so that it can still tell what hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// How many lines of a command that has failed are told in the result; all are on the serial port.
const WORDS: usize = 4;
