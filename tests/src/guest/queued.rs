//! Connections that nobody has accepted when their server is killed: the kernel gives them to the generation before.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::result::Counted;
use super::{commands, traffic};
use crate::process::Handle;

/// Stops the server, lets connections wait, kills it, and counts the answers of `before`.
///
/// # Errors
///
/// If there is nobody to kill, or nobody to connect to.
pub(super) fn play(before: u32, counted: &mut Counted) -> Result<()> {
    let primary = primary()?;
    for process in &primary {
        kill(Pid::from_raw(process.pid()), Signal::SIGSTOP).context("stop the server")?;
    }
    let waiting = (0..CLIENTS).map(|_| traffic::request()).collect::<Result<Vec<_>>>()?;
    primary.iter().try_for_each(Handle::kill)?;
    for stream in waiting {
        counted.queued += 1;
        match traffic::answer(stream) {
            Ok(generation) if generation == before => counted.saved += 1,
            Ok(other) => println!("a connection that waited was answered by {other}"),
            Err(error) => println!("a connection that waited was lost: {error:#}"),
        }
    }
    println!("{} of {} that waited were answered by {before}", counted.saved, counted.queued);
    if counted.saved != counted.queued {
        counted.wrong(format!("{} queued connections lost", counted.queued - counted.saved));
    }
    Ok(())
}

/// The processes of the generation that takes new connections.
fn primary() -> Result<Vec<Handle>> {
    let service = commands::status()?;
    let mut generations = service.generations.iter();
    let primary = generations
        .find(|generation| generation.takes_new_connections)
        .context("no generation takes new connections")?;
    ensure!(!primary.pids.is_empty(), "the generation that takes new connections has no process");
    primary.pids.iter().map(|pid| Handle::open(*pid)).collect()
}

const CLIENTS: usize = 8;
