//! What is in the virtual machines of `cargo xtask kernels`: one static program in several parts, and the agent.
//!
//! A machine has nothing else: no shell, no libraries, no service manager. It tells what it does on a serial port, ends
//! with one line that begins with [`result::MARK`], and switches itself off.
//!
//! - [`init`]: the first process, which makes a machine of it ([`mounts`], [`modules`], [`loopback`]) and starts the scenario
//! - [`scenario`]: what is done, where the agent is expected to work ([`served`]) and where not ([`refused`])
//! - [`server`]: the server that is upgraded
//! - [`commands`], [`traffic`], [`queued`]: the agent's command line, its clients, and those that wait when a server dies
//! - [`leftovers`], [`kernel_log`]: what must not be there at the end
//! - [`words`] and [`result`]: what the machine is told, and what it tells

mod commands;
mod init;
mod kernel_log;
mod leftovers;
mod loopback;
mod modules;
mod mounts;
mod queued;
mod refused;
mod result;
mod scenario;
mod served;
mod server;
mod traffic;
mod words;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

/// The part of the program that it was started as.
pub fn run() -> ExitCode {
    match part() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn part() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        _ if std::process::id() == 1 => init::run(),
        [name, generation] if is(name, SERVER) => {
            server::run(generation.parse().context("read the number of the generation")?)
        }
        [_, SCENARIO] => scenario::run(),
        _ => {
            bail!("this is the first process of a virtual machine: `cargo xtask kernels` boots it")
        }
    }
}

fn is(name: &str, program: &str) -> bool {
    Path::new(name).file_name() == Path::new(program).file_name()
}

/// The server, by its name; a link to this program.
const SERVER: &str = "/bin/server";
/// The argument with which the first process starts the scenario.
const SCENARIO: &str = "scenario";
const AGENT: &str = "/bin/agent";
const PORT: u16 = 8080;
