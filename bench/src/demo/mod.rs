//! An upgrade as people see it: a server under load, five new versions, one of which crashes, and one that is taken back.
//!
//! - [`story`]: what happens, act by act
//! - [`stage`]: the server, the agent and the clients, and running a command as it would be typed
//! - [`traffic`]: the clients
//! - [`screen`]: what is shown
//! - [`verdict`]: what the clients saw, and whether that is as promised
//!
//! It fails if a command does not end as it should, if one client saw a failure, if a connection reached a generation that
//! was not to get it, and if anything is left behind.

mod screen;
mod stage;
mod story;
mod traffic;
mod verdict;

use std::process::ExitCode;

use anyhow::Result;

use self::screen::Screen;
use self::stage::Stage;
use self::verdict::Verdict;
use crate::interrupt::Interrupt;
use crate::traces::Traces;

/// Plays the whole demo and says how it went.
pub fn run() -> ExitCode {
    let screen = Screen::new();
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => return failed(&screen, &error),
    };
    match play(&screen, &interrupt) {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::FAILURE,
        Err(error) => failed(&screen, &error),
    }
}

fn play(screen: &Screen, interrupt: &Interrupt) -> Result<Verdict> {
    let mut stage = Stage::set(screen, interrupt)?;
    let traces = Traces::of(&stage.namespace, &stage.agent, &[&stage.server])?;
    let told = story::tell(&mut stage);
    // Whatever happened, all of it ends here; what did not end by itself is looked for.
    drop(stage);
    let left = traces.left_behind();
    let verdict = match told {
        Ok(told) => told.show(screen),
        Err(error) => {
            screen.error(&format!("{error:#}"));
            Verdict::Broken
        }
    };
    let left = left?;
    if left.is_empty() {
        screen.good(
            "nothing is left behind: no pins, no control groups, no namespaces, no processes",
        );
        return Ok(verdict);
    }
    screen.error(&format!("this was left behind: {}", left.join(", ")));
    Ok(Verdict::Broken)
}

fn failed(screen: &Screen, error: &anyhow::Error) -> ExitCode {
    screen.error(&format!("{error:#}"));
    ExitCode::FAILURE
}
