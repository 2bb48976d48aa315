//! What is done in a machine.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::result::Counted;
use super::words::Words;
use super::{SERVER, kernel_log, refused, served, traffic};
use crate::wait;

/// Does it, and tells what came of it in the last line.
pub(super) fn run() -> Result<()> {
    let mut counted = Counted::default();
    // What broke it off is told as all else that is wrong.
    if let Err(error) = play(&mut counted) {
        counted.wrong(format!("{error:#}"));
    }
    println!("{}", counted.line());
    Ok(())
}

fn play(counted: &mut Counted) -> Result<()> {
    let words = Words::read()?;
    let _server = start_server()?;
    let played = match words.is_refusal_expected() {
        true => refused::play(counted),
        false => served::play(counted),
    };
    // Also when it was broken off: the kernel may be the reason.
    for line in kernel_log::troubles()? {
        counted.wrong(format!("the kernel's log: {line}"));
    }
    played
}

/// The first generation, which nobody but its operator knows of.
fn start_server() -> Result<Child> {
    let server =
        Command::new(SERVER).arg("1").stdin(Stdio::null()).spawn().context("start the server")?;
    wait::until("the server to answer", Duration::from_secs(20), || Ok(traffic::ask().ok()))?;
    println!("the server answers");
    Ok(server)
}
