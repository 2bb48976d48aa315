//! The first process: makes a machine of a kernel, starts the scenario, waits for whoever ends, and switches off.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::wait::{WaitStatus, wait};
use rustix::system::{RebootCommand, reboot};

use super::result::Counted;
use super::words::Words;
use super::{SCENARIO, loopback, modules, mounts};

/// Returns only if the machine cannot be switched off: the kernel gives up when its first process ends.
pub(super) fn run() -> Result<()> {
    if let Err(error) = live() {
        // The standard output is the kernel's console.
        println!("{error:#}");
    }
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff).context("switch off")
}

fn live() -> Result<()> {
    mounts::mount_first()?;
    let words = Words::read()?;
    let port = format!("/dev/{}", words.output().unwrap_or("console"));
    let mut port =
        File::options().write(true).open(&port).with_context(|| format!("open `{port}`"))?;
    if let Err(error) = live_with(&words, &port) {
        let counted = Counted { wrong: vec![format!("{error:#}")], ..Counted::default() };
        writeln!(port, "{}", counted.line())?;
    }
    // What is still in its buffer would be lost with the machine.
    rustix::termios::tcdrain(&port).context("empty the serial port")
}

fn live_with(words: &Words, port: &File) -> Result<()> {
    mounts::mount_all(words)?;
    if !words.is_without_modules() {
        modules::load_all()?;
    }
    loopback::bring_up()?;
    wait_for(&start_scenario(port)?)
}

/// In a process of its own, since this one has to wait for all that have lost their parents.
fn start_scenario(port: &File) -> Result<Child> {
    Command::new("/proc/self/exe")
        .arg(SCENARIO)
        .env_clear()
        .envs([("PATH", "/bin"), ("HOME", "/root"), ("LC_ALL", "C"), ("NO_COLOR", "1")])
        .stdin(Stdio::null())
        .stdout(port.try_clone()?)
        .stderr(port.try_clone()?)
        .spawn()
        .context("start the scenario")
}

fn wait_for(scenario: &Child) -> Result<()> {
    let scenario = i32::try_from(scenario.id())?;
    loop {
        let ended = wait().context("wait for processes")?;
        match ended {
            _ if ended.pid().is_none_or(|pid| pid.as_raw() != scenario) => {}
            WaitStatus::Exited(_, 0) => return Ok(()),
            other => bail!("the scenario ended with {other:?}"),
        }
    }
}
