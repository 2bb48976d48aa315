//! `agent daemon`, and what an agent in the background tells the one who started it.

use std::{
    cell::Cell,
    io::{self, Write},
};

use super::{Context, arguments::DaemonArguments};
use crate::{
    api::{Problem, ProblemKind},
    daemon::{self, Options},
    exit::ExitCode,
};

/// The first line of an agent in the background, when it listens. When it cannot, it is the JSON of a [`Problem`].
pub(super) const READY: &str = "ready";

/// Runs the agent until it is told to end.
pub(super) fn run(context: &Context, arguments: &DaemonArguments) -> Result<ExitCode, Problem> {
    let DaemonArguments { exit_when_detached } = *arguments;
    let options = Options { places: context.places.clone(), exit_when_detached };
    if exit_when_detached {
        in_background(&options)?;
    } else {
        daemon::run(&options, || {})?;
    }
    Ok(ExitCode::Done)
}

fn in_background(options: &Options) -> Result<(), Problem> {
    let listens = Cell::new(false);
    let ready = || {
        listens.set(true);
        tell(READY);
    };
    let served = leave_the_caller().and_then(|()| daemon::run(options, ready));
    if let Err(problem) = &served
        && !listens.get()
    {
        tell(&serde_json::to_string(problem).unwrap_or_default());
    }
    served
}

/// Writes the line. Whoever started the agent may have gone; it serves all the same.
fn tell(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Out of the caller's session, so that its terminal's signals end only the caller, and off its directory.
fn leave_the_caller() -> Result<(), Problem> {
    nix::unistd::setsid().map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    std::env::set_current_dir("/").map_err(|error| Problem::caused(ProblemKind::Failed, &error))
}
